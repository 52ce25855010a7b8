"""Trace -> Analysis: pure functions, no input or output. Definitions: docs/metrics.md."""
