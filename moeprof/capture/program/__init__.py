"""Capture the user's own program: its name, its output, the window that is recorded, and what ends it."""
