"""A host whose clock is FAKE_AHEAD_NS ahead: the time of day as Python's processes read it."""

import os
import time

_ahead = int(os.environ.get("FAKE_AHEAD_NS", "0"))
if _ahead and not hasattr(time, "ahead"):  # a fork of a process whose clock is ahead
    time.ahead = _ahead
    _now, _now_ns = time.time, time.time_ns
    time.time = lambda: _now() + _ahead / 1e9
    time.time_ns = lambda: _now_ns() + _ahead
