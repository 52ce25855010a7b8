"""A captured part of a test and its assertions. All values are per iteration, the mean of the captured iterations."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from moeprof.loaded import pytest_run
from moeprof.loaded.pytest_run import Captured, Check
from moeprof.testing import numbers, why
from moeprof.testing.clocking import clean_rounds
from moeprof.testing.errors import ProbeError
from moeprof.testing.limits import Limits
from moeprof.testing.log import Log
from moeprof.testing.numbers import Part
from moeprof.trace.classify import BLOCKING

NO_CALLS = "operators on a CPU make no CUDA calls"
GIGA, TERA = 1e9, 1e12


@dataclass(frozen=True)
class Value:
    """A value per iteration, or the reason why it is not known."""

    name: str
    value: float | None
    unit: str = ""
    absent: str = ""


class Work:
    """What ran in a capture. Every assertion returns the value it passed with.

    Raises (all assertions):
        AssertionError: the value is outside the limit, or not known here; the message reports the cause.
        ProbeError: the capture is not finished, or there is no limit.
    """

    def __init__(self, log: Log, part: Part, run: Callable[[], object] | None = None) -> None:
        self._log, self._part, self._run = log, part, run
        self._capture: Captured | None = None
        self._broken = ""

    def fill(self, capture: Captured) -> None:
        """The capture is over: these are its numbers."""
        self._capture = capture
        self._log.captures.append(capture)

    def break_off(self, reason: str, number: int, device: str, iterations: int | None) -> None:
        """The capture is over and has no numbers."""
        self._broken = reason
        self._log.captures.append(Captured(number, device, iterations or 1, problem=reason))

    @property
    def capture(self) -> Captured:
        """The numbers."""
        if self._capture is None:
            raise ProbeError(
                f"nothing was captured: {self._broken}" if self._broken else "the capture is still open",
                "" if self._broken else "assert after the with block",
            )
        return self._capture

    def __str__(self) -> str:
        return why.ledger(self.capture)

    def launches(
        self, *, at_most: float | None = None, at_least: float | None = None, exactly: float | None = None
    ) -> float:
        """Launch calls: kernels launched one by one, and replays of CUDA graphs."""
        __tracebackhide__ = True
        value = Value("launches", pytest_run.launches(self.capture), "", NO_CALLS)
        return self._judge(value, Limits(at_least, at_most, exactly), lambda: self._places(pytest_run.LAUNCHES))

    def sync_calls(
        self, *, at_most: float | None = None, at_least: float | None = None, exactly: float | None = None
    ) -> float:
        """Host calls that wait for the device."""
        __tracebackhide__ = True
        value = Value("sync_calls", pytest_run.sync_calls(self.capture), "", NO_CALLS)
        return self._judge(value, Limits(at_least, at_most, exactly), lambda: self._places(BLOCKING))

    def kernels(
        self,
        matching: str | None = None,
        *,
        at_most: float | None = None,
        at_least: float | None = None,
        exactly: float | None = None,
    ) -> float:
        """Kernels (on a CPU: outermost operators), or those whose name the regular expression ``matching`` finds."""
        __tracebackhide__ = True
        capture, pattern = self.capture, _pattern(matching or "")
        count = sum(k.count for k in capture.kernels if pattern.search(k.name)) / capture.iterations
        limits = Limits(at_least, at_most, exactly)
        name = "kernels" if matching is None else f"kernels matching {matching!r}"
        return self._judge(Value(name, count), limits, lambda: self._kernels(matching, count, limits))

    def no_kernels(self, matching: str) -> float:
        """No kernel whose name ``matching`` finds."""
        __tracebackhide__ = True
        return self.kernels(matching, at_most=0)

    def only_kernels(self, *matching: str) -> float:
        """No kernel but those whose names one of the regular expressions finds; new ones are named."""
        __tracebackhide__ = True
        capture, patterns = self.capture, [_pattern(m) for m in matching]
        if not patterns:
            raise ProbeError("only_kernels needs the kernels that may run", "give regular expressions of their names")
        strange = sum(k.count for k in capture.kernels if not any(p.search(k.name) for p in patterns))
        value = Value(f"kernels other than {', '.join(map(repr, matching))}", strange / capture.iterations)
        return self._judge(value, Limits(at_most=0), lambda: why.kernels(capture, matching, inside=False))

    def copy_overlap(
        self, direction: str | None = None, *, at_least: float | None = None, at_most: float | None = None
    ) -> float:
        """Share of the copy time that runs beside kernels, of one direction (H2D, D2H, P2P, D2D) or of all but D2D."""
        __tracebackhide__ = True
        name = _of("copy_overlap", direction)
        value = Value(
            name,
            pytest_run.copy_overlap(self.capture, direction),
            "",
            f"no {f'{direction} ' if direction else ''}copy ran",
        )
        return self._judge(value, Limits(at_least, at_most), lambda: why.exposed(self.capture, direction))

    def exposed_copy_ms(self, direction: str | None = None, *, at_most: float) -> float:
        """Time in which only copies run; of one ``direction``: the time of its copies beside which no kernel runs."""
        __tracebackhide__ = True
        value = Value(_of("exposed_copy", direction), pytest_run.exposed_copy_ns(self.capture, direction) / 1e6, "ms")
        return self._judge(value, Limits(at_most=at_most), lambda: why.exposed(self.capture, direction))

    def idle_ms(self, *, at_most: float) -> float:
        """Time in which the device does nothing, between the first and the last operation. The profiler makes it longer."""
        __tracebackhide__ = True
        capture = self.capture
        ns = capture.window.ledger.idle_ns if capture.window else 0
        value = Value("idle", ns / capture.iterations / 1e6, "ms")
        return self._judge(value, Limits(at_most=at_most), lambda: why.idle(capture))

    def throughput_gb_per_s(self, *, bytes_moved: float, at_least: float, seconds: float = 0.05) -> float:
        """``bytes_moved`` per iteration over its time (see ``docs/howto/pytest.md`` for whose time)."""
        __tracebackhide__ = True
        return self._throughput("throughput", bytes_moved / GIGA, "GB/s", at_least, seconds)

    def throughput_tflop_per_s(self, *, flops: float, at_least: float, seconds: float = 0.05) -> float:
        """``flops`` per iteration over its time."""
        __tracebackhide__ = True
        return self._throughput("throughput", flops / TERA, "TFLOP/s", at_least, seconds)

    def _throughput(self, name: str, amount: float, unit: str, at_least: float, seconds: float) -> float:
        """Of ``record`` by clean times; of a block, which cannot run again, by the traced window."""
        __tracebackhide__ = True
        capture, limits = self.capture, Limits(at_least=at_least)
        if self._run is None:
            span = capture.window.span_ns / capture.iterations if capture.window else 0
            value = Value(name, amount / (span / 1e9) if span else None, unit, "nothing ran")
            return self._judge(value, limits, lambda: "  its time is the traced one, the profiler's overhead inside")
        spread = clean_rounds(self._run, "cuda" if capture.device == "cuda" else "cpu", seconds)
        low, middle, high = (amount / (ns / 1e9) for ns in (spread.high, spread.value, spread.low))
        return self._judge_between(Value(name, middle, unit), limits, low, high)

    def _judge_between(self, value: Value, limits: Limits, low: float, high: float) -> float:
        __tracebackhide__ = True
        within = f"  95 % interval {low:.4g} to {high:.4g} {value.unit}, timed without the profiler"
        if limits.hold(high) and not limits.hold(low):
            self._log.settle(self._check(value, limits, "unclear", f"UNCLEAR: {within.strip()}"))
            return value.value or 0.0
        return self._judge(value, limits, lambda: within)

    def _judge(self, value: Value, limits: Limits, offence: Callable[[], str]) -> float:
        __tracebackhide__ = True
        if value.value is None:
            self._log.settle(self._check(value, limits, "unknown", f"not known here: {value.absent}"))
            return 0.0  # never reached: what is not known fails or skips
        if limits.hold(value.value):
            self._log.settle(self._check(value, limits, "passed", ""))
        else:
            self._log.settle(self._check(value, limits, "failed", offence()))
        return value.value

    def _check(self, value: Value, limits: Limits, outcome: pytest_run.Outcome, reason: str) -> Check:
        limit = limits.text(value.unit)
        detail = ""
        if outcome != "passed":
            shown = reason if value.value is None else f"{value.value:.4g} {value.unit}".rstrip()
            head = f"{value.name}: {shown}; asserted: {limit}"
            detail = "\n".join(t for t in (head, "" if value.value is None else reason, why.ledger(self.capture)) if t)
        return Check(value.name, value.value, value.unit, limit, outcome, detail, self.capture.number)

    def _places(self, kinds: tuple[str, ...]) -> str:
        return why.places(self.capture, numbers.call_sites(self._part, kinds))

    def _kernels(self, matching: str | None, count: float, limits: Limits) -> str:
        """Too many: which they are. Too few: what ran instead."""
        too_many = limits.at_most is not None and count > limits.at_most
        if matching is None or too_many or (limits.exactly is not None and count > limits.exactly):
            return why.kernels(self.capture, [matching] if matching else ())
        return "  what ran:\n" + why.kernels(self.capture) if self.capture.kernels else "  nothing ran"


def _of(name: str, direction: str | None) -> str:
    return name if direction is None else f"{name} {direction}"


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ProbeError(f"{text!r} is no regular expression: {error}", "escape what is meant literally") from error
