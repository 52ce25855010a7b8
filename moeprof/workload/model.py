"""What a workload is: variants of the same work, each built as a step, proven and timed.

A workload is one technique told as variants of the same work: an honest baseline, the optimized version and the steps
between. A module declares it as ``WORKLOAD = Workload(...)`` and keeps torch inside its functions, so that listing
workloads stays instant. See ``workloads/kv_transfer.py`` for a whole one and the README for one in 20 lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from moeprof.errors import UsageError
from moeprof.workload.bounds import Exchange, Pipeline, Roofline

DEFAULT_COUNTED = 3  # kernels of an iteration that Nsight Compute counts

Params = Mapping[str, Any]


@dataclass(frozen=True)
class Machine:
    """The facts of this machine that decide whether a variant can run here."""

    cuda: bool
    gpus: int
    gpu_name: str | None = None
    compute_capability: str | None = None  # "9.0"
    linked: bool = False  # GPU 0 can reach GPU 1's memory directly
    cpus: int = 1
    torch: str | None = None
    ranks: int = 1  # processes that run a workload with ranks together


@dataclass(frozen=True)
class Proof:
    """The verdict of comparing a variant's poisoned-then-written output with a reference of higher precision.

    ``error`` and ``tolerance`` are relative Frobenius norms, the worst over all parts compared; ``checked`` says how
    much was compared ("32 of 32 layers, whole"); ``reason`` says what is wrong where ``ok`` is false.
    """

    ok: bool
    checked: str
    error: float | None
    tolerance: float
    reason: str = ""


@dataclass(frozen=True)
class Step:
    """A built variant: everything is allocated; ``run()`` is what is timed and profiled.

    Attributes:
        run: enqueue one iteration; on CUDA it may return before the work ends, but the work must have joined the current
            stream, so that an event recorded after it marks its end.
        output: the tensor that the proof compares; valid after a device synchronise.
        poison: overwrite every buffer that ``run`` writes or stages, so that unwritten parts cannot pass.
        flops: useful floating-point operations of one iteration.
        bytes_moved: bytes that one iteration must move over the link or memory it is bound by.
        facts: figures of the work that stand beside the time (a dropped share), name with its unit -> number or words, or a list
            of numbers to be drawn as bars; read once, after the proof.
        slack: factor on the proof's tolerance that this variant's own rounding earns (scores stored in 16 bits); the proof says it.
        repeatable: whether two runs of one input must agree bit for bit; a library's kernel may promise less.
    """

    run: Callable[[], None]
    output: Callable[[], Any]
    poison: Callable[[], None]
    flops: int
    bytes_moved: int
    facts: Callable[[], dict[str, Any]] = dict
    slack: float = 1.0
    repeatable: bool = True


def always(machine: Machine) -> str | None:
    """A variant that runs anywhere."""
    return None


def needs_cuda(machine: Machine) -> str | None:
    """A variant that needs a CUDA GPU; the answer is the reason shown after ``SKIPPED:``."""
    return None if machine.cuda else "needs a CUDA GPU"


Build = Callable[[Params, str], Step]


@dataclass(frozen=True)
class Variant:
    """One way of doing the work: ``build(params, device)`` sets it up; ``needs(machine)`` says why it cannot run. ``imports``: modules that
    it imports and that take seconds; a process that is to be profiled does so ahead, while others are built."""

    name: str
    summary: str
    build: Build
    needs: Callable[[Machine], str | None] = always
    imports: tuple[str, ...] = ()


def unchanged(params: Params, machine: Machine) -> dict[str, Any]:
    """Parameters that need no calibration."""
    return dict(params)


def no_ceilings(params: Params, device: str) -> dict[str, float]:
    """A workload that measures no ceiling of its own."""
    return {}


@dataclass(frozen=True)
class Workload:
    """One technique and its variants.

    Attributes:
        name, summary, variants: as ``moeprof list`` shows them; the variants in rising order, the baseline first.
        baseline, optimized: the pair that ``report --diff`` contrasts.
        presets: parameter sets by name; ``default`` and ``tiny`` (CPU) at least. All share the same keys.
        prove: poison, run and compare one built step (params, device, step) -> Proof.
        faults: planted faults, name -> build; the proof must fail each of them.
        resolve: turn requested parameters into concrete ones, once per capture (calibration); it runs in the worker.
        ceilings: measure what bounds the work on this machine, name -> GB/s or TFLOP/s.
        limit: the model of the best possible time.
        shows: the lesson, one sentence.
        ranks: every variant is built once in each of N processes, torch.distributed is initialised before ``build``; its device is
            set, and ``run`` may communicate. ``flops`` and ``bytes_moved`` are a rank's own. See docs/howto/several_gpus.md.
        counted, stalls: kernels of an iteration that Nsight Compute counts by default, and whether it counts why warps wait.
    """

    name: str
    summary: str
    variants: tuple[Variant, ...]
    baseline: str
    optimized: str
    presets: Mapping[str, Params]
    prove: Callable[[Params, str, Step], Proof]
    limit: Pipeline | Roofline | Exchange | None = None
    faults: Mapping[str, Build] = field(default_factory=dict)
    resolve: Callable[[Params, Machine], dict[str, Any]] = unchanged
    ceilings: Callable[[Params, str], dict[str, float]] = no_ceilings
    shows: str = ""
    counted: int = DEFAULT_COUNTED
    stalls: bool = False
    ranks: bool = False

    def variant(self, name: str) -> Variant:
        """The variant called ``name``; raises UsageError with the names there are."""
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise UsageError(
            f"workload {self.name!r} has no variant {name!r}",
            f"its variants: {', '.join(v.name for v in self.variants)}",
        )

    def params(self, preset: str, overrides: Mapping[str, str]) -> dict[str, Any]:
        """The parameters of ``preset`` with ``overrides`` (text, as typed) converted to each parameter's own type."""
        if preset not in self.presets:
            raise UsageError(
                f"workload {self.name!r} has no preset {preset!r}", f"its presets: {', '.join(self.presets)}"
            )
        params = dict(self.presets[preset])
        for key, text in overrides.items():
            if key not in params:
                raise UsageError(
                    f"workload {self.name!r} has no parameter {key!r}", f"its parameters: {', '.join(params)}"
                )
            params[key] = _convert(key, text, type(params[key]))
        return params


def pairs(words: Iterable[str]) -> dict[str, str]:
    """KEY=VALUE words of a command line as overrides; raises UsageError for one without an equals sign."""
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"--set {word!r} is not KEY=VALUE", "for example --set layers=8")
        found[key] = value
    return found


def _convert(key: str, text: str, kind: type) -> Any:
    if kind is bool:
        if text.lower() not in ("true", "false", "1", "0"):
            raise UsageError(f"parameter {key}={text!r} is not a yes or no", "give true or false")
        return text.lower() in ("true", "1")
    try:
        return kind(text)
    except ValueError:
        raise UsageError(
            f"parameter {key}={text!r} is not {kind.__name__}", f"give a value such as {kind()!r}"
        ) from None
