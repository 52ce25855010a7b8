"""The object behind the fixture ``moeprof``: capture, record, read, compare."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from moeprof.loaded.pytest_run import Check
from moeprof.testing import clocking, numbers, profiling
from moeprof.testing.clocking import ROUNDS, SECONDS, Run
from moeprof.testing.errors import ProbeError
from moeprof.testing.log import Log, Policy
from moeprof.testing.numbers import Part
from moeprof.testing.work import Work

WARM_UP = 3


class Moeprof:
    """One test's captures; traces lie in ``folder`` until the test is over."""

    def __init__(self, log: Log, folder: Path) -> None:
        self._log, self._folder = log, folder
        self._open = False

    @contextmanager
    def capture(self, *, iterations: int = 1, device: str | None = None, may_be_empty: bool = False) -> Iterator[Work]:
        """Record what the block does; it runs ``iterations`` of the work, and all numbers are of one of them.

        Warm up before the block. The device waits before it and after it; these waits are not counted.

        Raises:
            ProbeError: another capture or profiler is open, or nothing ran on the device (unless it ``may_be_empty``).
        """
        place = self._place(device, iterations)
        number = len(self._log.captures) + 1
        work = Work(self._log, Part(self._folder / f"capture-{number}.json"))
        yield from self._recorded(work, number, place, iterations, may_be_empty)

    def record(
        self,
        run: Callable[[], object],
        *,
        iterations: int = 5,
        warm_up: int = WARM_UP,
        device: str | None = None,
        may_be_empty: bool = False,
    ) -> Work:
        """Call ``run`` ``warm_up`` times, then ``iterations`` times under the profiler. Raises as ``capture`` does."""
        place = self._place(device, iterations)
        for _ in range(warm_up):
            run()
        number = len(self._log.captures) + 1
        work = Work(self._log, Part(self._folder / f"capture-{number}.json"), run)
        with contextmanager(self._recorded)(work, number, place, iterations, may_be_empty):
            for _ in range(iterations):
                run()
        return work

    def read(
        self,
        path: str | Path,
        *,
        range_name: str | None = None,
        domain: str | None = None,
        iterations: int | None = None,
    ) -> Work:
        """Assert on a trace that was recorded before: nsys's SQLite export or torch.profiler's JSON.

        With ``range_name`` only what was launched inside the instances of that range, each an iteration unless
        ``iterations`` says otherwise.

        Raises:
            TraceError, UsageError: there is no such trace or range.
        """
        work = Work(self._log, Part(Path(path), range_name, domain))
        work.fill(
            numbers.captured(Part(Path(path), range_name, domain), len(self._log.captures) + 1, "trace", iterations)
        )
        return work

    def faster(
        self,
        new: Run,
        old: Run,
        *,
        by: float = 1.0,
        rounds: int = ROUNDS,
        seconds: float = SECONDS,
        unclear: Policy | None = None,
    ) -> float:
        """``new`` takes at most 1/``by`` of ``old``'s time: the whole 99 % interval of a typical round's ratio says so.

        Returns the speed-up. ``unclear``: "fail" or "skip" where the interval cannot tell (default: --moeprof-unclear).
        """
        __tracebackhide__ = True
        pair = clocking.timed_pair(new, old, self._free(None), rounds, seconds)
        return self._settled(clocking.faster(pair, by), unclear)

    def not_slower(
        self,
        new: Run,
        old: Run,
        *,
        than: float = 1.03,
        rounds: int = ROUNDS,
        seconds: float = SECONDS,
        unclear: Policy | None = None,
    ) -> float:
        """``new`` takes at most ``than`` times ``old``'s time, by the whole interval. Returns the ratio new / old."""
        __tracebackhide__ = True
        pair = clocking.timed_pair(new, old, self._free(None), rounds, seconds)
        return self._settled(clocking.not_slower(pair, than), unclear)

    def _settled(self, check: Check, unclear: Policy | None) -> float:
        __tracebackhide__ = True
        self._log.settle(check, unclear)
        return check.value or 0.0

    def _place(self, device: str | None, iterations: int) -> str:
        if iterations < 1:
            raise ProbeError(f"{iterations} iterations cannot be captured", "give 1 or more")
        return self._free(device)

    def _free(self, device: str | None) -> str:
        """The device, where no capture is open: one inside another would record both."""
        if self._open:
            raise ProbeError("a capture of this test is still open", "let its with block end before this begins")
        return profiling.device_here(device)

    def _recorded(self, work: Work, number: int, device: str, iterations: int, may_be_empty: bool) -> Iterator[Work]:
        self._open = True
        try:
            with profiling.recorded(device, self._folder / f"capture-{number}.json"):
                yield work
        except BaseException as error:
            work.break_off(f"{type(error).__name__}: {error}"[:300], number, device, iterations)
            raise
        finally:
            self._open = False
        part = Part(self._folder / f"capture-{number}.json")
        capture = numbers.captured(part, number, device, iterations)
        work.fill(capture)
        numbers.refuse_empty(capture, may_be_empty)
