"""A gate: a worker that is set up says so by a file, and waits for another before it measures.

Setting up takes seconds: several processes do it side by side, and then measure one at a time.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from moeprof.errors import CaptureError

HOLDER = "MOEPROF_HOLDER"  # in the environment: the number of the process that opens gates
LOOK_S = 0.5


def wait_at(gate: str | None, interval_s: float = 0.002) -> bool:
    """Say by the file ``gate``.ready that all is set up, then wait until ``gate`` exists; whether it had to be waited for.

    Raises:
        CaptureError: the process that would open it is gone.
    """
    if gate is None:
        return False
    Path(gate + ".ready").touch()
    waited, looked = False, time.monotonic()
    while not Path(gate).exists():
        waited = True
        time.sleep(interval_s)
        if time.monotonic() - looked > LOOK_S:
            looked = time.monotonic()
            _held()
    return waited


def _held() -> None:
    holder = os.environ.get(HOLDER, "")
    if not holder.isdigit():
        return
    with suppress(PermissionError):  # it is there, and another user's
        try:
            os.kill(int(holder), 0)
        except ProcessLookupError:
            raise CaptureError("the capture that this process waited for is gone", "capture again") from None
