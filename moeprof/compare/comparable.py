"""Whether two captures may be compared: what differs in workload, parameters, hardware and its state, software and checkout."""

from __future__ import annotations

import shlex
from statistics import median

from moeprof.notes import Note, note
from moeprof.storage.manifest import Manifest, VariantRecord

CLOCKS_APART = 0.03  # median SM clocks of one variant in two captures, from which the captures are unlike


def unlike(before: Manifest, after: Manifest) -> tuple[Note, ...]:
    """What differs between two captures: workload, parameters, hardware and its state, software, then the checkout.

    The checkout has a separate note: the comparison may be of two states of the code.
    """
    facts_before, facts_after = _facts(before), _facts(after)
    keys = {**facts_before, **facts_after}
    pairs = {key: (facts_before.get(key, "none"), facts_after.get(key, "none")) for key in keys}
    differences = [note("unlike", what=key, before=a, after=b) for key, (a, b) in pairs.items() if a != b]
    differences += _settings_apart(before, after) + _clocks_apart(before, after)
    if before.git != after.git:
        differences.append(note("unlike-code", before=before.git or "none", after=after.git or "none"))
    return tuple(differences)


def apart(before: Manifest, after: Manifest) -> tuple[Note, ...]:
    """What forbids a comparison of times: as ``unlike``, without the checkout."""
    return tuple(n for n in unlike(before, after) if n.id == "unlike")


def _facts(manifest: Manifest) -> dict[str, str]:
    """What must be equal. A state that a capture does not contain (an older one) is left out."""
    e, gpus = manifest.environment, manifest.environment.gpus_before
    facts = {
        "workload": manifest.name,
        "device": manifest.device,
        "GPU": ", ".join(g.name for g in gpus) or "none",
        "driver": (gpus[0].driver if gpus else None) or "none",
        "torch": e.torch or "none",
        "CUDA": e.cuda or "none",
        "CPU": f"{e.cpu}, {e.cpus} cores",
        "Python": e.python,
        "moeprof": e.moeprof,
    }
    facts |= {f"package {name}": version for name, version in sorted(e.packages.items()) if name != "torch"}
    facts |= {f"command of {v.name}": shlex.join(v.command) for v in manifest.variants if v.command}
    return facts | {f"parameter {key}": str(value) for key, value in sorted(manifest.params.items())}


def _settings_apart(before: Manifest, after: Manifest) -> list[Note]:
    """Settings of the GPUs that both captures contain and that differ."""
    differences = []
    pairs = zip(before.environment.gpus_before, after.environment.gpus_before, strict=False)
    for gpu_before, gpu_after in pairs:
        for what, key in (("ECC", "ecc"), ("MIG", "mig"), ("power limit (W)", "power_limit_w")):
            values = getattr(gpu_before, key), getattr(gpu_after, key)
            if None not in values and values[0] != values[1]:
                differences.append(note("unlike", what=what, before=_setting(values[0]), after=_setting(values[1])))
    return differences


def _setting(value: bool | float) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else f"{value:g}"


def _clocks_apart(before: Manifest, after: Manifest) -> list[Note]:
    """The median clocks of each common variant, over the rounds that count."""
    differences = []
    for record_before in before.variants:
        record_after = after.variant(record_before.name)
        for what, key in (("SM clock", "sm_clock_mhz"), ("memory clock", "memory_clock_mhz")):
            clock, other_clock = (_clock(r, key) for r in (record_before, record_after))
            if clock and other_clock and abs(clock / other_clock - 1) > CLOCKS_APART:
                where = f"the {what} while {record_before.name} was timed (MHz)"
                differences.append(note("unlike", what=where, before=f"{clock:.0f}", after=f"{other_clock:.0f}"))
    return differences


def _clock(record: VariantRecord | None, key: str) -> float | None:
    values = [v for r in (record.used if record else ()) if r.gpu is not None and (v := getattr(r.gpu, key))]
    return median(values) if values else None
