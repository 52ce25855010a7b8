"""Captures and traces, opened and analysed once, findings included."""
