"""A trace: what ran on the GPU, which call launched it, and inside which range. Every reader fills the same tables.

``read(path)`` sniffs the file's kind and returns a ``Trace``; ``open_trace(path)`` exports a raw report of nsys first.
Only the readers know vendor names.
"""

from moeprof.trace.open import open_trace, read
from moeprof.trace.tables import Device, Origin, Trace

__all__ = ["Device", "Origin", "Trace", "open_trace", "read"]
