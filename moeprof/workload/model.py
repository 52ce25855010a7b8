"""What a workload is: variants of the same work, each built as a step, proven and timed.

A workload is one technique as variants of the same work: an honest baseline, the optimized version and the steps between.
A module declares it as ``WORKLOAD = Workload(...)`` and imports torch inside its functions, so that listing workloads stays
instant. ``workloads/kv_transfer`` is a complete example.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from moeprof.errors import UsageError, choices
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
    """The verdict of comparing the output of a variant, poisoned before the run, with a reference of higher precision.

    ``error`` and ``tolerance`` are relative Frobenius norms, the worst of all parts compared. ``checked`` is how much was
    compared ("32 of 32 layers, whole"); ``reason`` is what is wrong if ``ok`` is false.
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
        run: enqueue one iteration. On CUDA it may return before the work ends; the current stream must wait for all of the
            work, so that an event recorded afterwards marks its end.
        output: the tensor that the proof compares; valid after a device synchronise.
        poison: overwrite every buffer that ``run`` writes or stages, so that unwritten parts fail the proof.
        flops: useful floating-point operations of one iteration.
        bytes_moved: bytes that one iteration must move over the link or memory that bounds it.
        facts: figures to report beside the time, name with unit -> number, words, or a list of numbers to draw as bars; read
            once, after the proof.
        slack: factor on the tolerance of the proof for rounding inherent in the variant, such as scores stored in 16 bits.
        repeatable: whether two runs of one input must agree bit for bit; kernels of libraries may not guarantee it.
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
    """``needs`` of a variant that runs anywhere."""
    return None


def needs_cuda(machine: Machine) -> str | None:
    """``needs`` of a variant for CUDA GPUs; the result is the reason shown after ``SKIPPED:``."""
    return None if machine.cuda else "needs a CUDA GPU"


Build = Callable[[Params, str], Step]


@dataclass(frozen=True)
class Variant:
    """One way of doing the work. ``build(params, device)`` sets it up; ``needs(machine)`` returns why it cannot run, or None.
    ``imports``: modules that take seconds to import; a process to be profiled imports them while other processes are built."""

    name: str
    summary: str
    build: Build
    needs: Callable[[Machine], str | None] = always
    imports: tuple[str, ...] = ()


def unchanged(params: Params, machine: Machine) -> dict[str, Any]:
    """``resolve`` of a workload without calibration."""
    return dict(params)


def no_ceilings(params: Params, device: str) -> dict[str, float]:
    """``ceilings`` of a workload that measures none."""
    return {}


@dataclass(frozen=True)
class Workload:
    """One technique and its variants.

    Attributes:
        name, summary, variants: as ``moeprof list`` shows them; the variants in rising order, the baseline first.
        baseline, optimized: the pair that ``report --diff`` contrasts.
        presets: parameter sets by name, at least ``default`` and ``tiny`` (CPU), all with the same keys.
        prove: poison, run and compare one built step (params, device, step) -> Proof.
        faults: planted faults, name -> build; the proof must fail each of them.
        resolve: turn requested parameters into concrete ones (calibration); it runs in the worker, once per capture.
        ceilings: measure what bounds the work on this machine, name -> GB/s or TFLOP/s.
        limit: the model of the best possible time.
        shows: the lesson, one sentence.
        ranks: every variant is built in each of N processes. torch.distributed is initialised and the device set before ``build``,
            and ``run`` may communicate. ``flops`` and ``bytes_moved`` are those of one rank. See docs/howto/several_gpus.md.
        gpu_technique: whether its times say something of a GPU only. On a CPU its capture is a functional check without a verdict.
        counted, stalls: kernels of an iteration that Nsight Compute counts by default, and whether it counts warp states.
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
    gpu_technique: bool = False

    def variant(self, name: str) -> Variant:
        """The variant ``name``; raises UsageError with the existing names."""
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise UsageError(
            f"workload {self.name!r} has no variant {name!r}",
            choices(name, (v.name for v in self.variants), "its variants"),
        )

    def params(self, preset: str, overrides: Mapping[str, str]) -> dict[str, Any]:
        """The parameters of ``preset`` with ``overrides`` (text, as typed) converted to each parameter's own type."""
        if preset not in self.presets:
            raise UsageError(
                f"workload {self.name!r} has no preset {preset!r}", choices(preset, self.presets, "its presets")
            )
        params = dict(self.presets[preset])
        for key, text in overrides.items():
            if key not in params:
                raise UsageError(
                    f"workload {self.name!r} has no parameter {key!r}", choices(key, params, "its parameters")
                )
            params[key] = _convert(key, text, type(params[key]))
        return params


def pairs(words: Iterable[str]) -> dict[str, str]:
    """KEY=VALUE words of a command line as overrides; raises UsageError for a word without an equals sign."""
    overrides = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"--set {word!r} is not KEY=VALUE", "for example --set layers=8")
        overrides[key] = value
    return overrides


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
