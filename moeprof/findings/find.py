"""Rules that turn a trace into claims with evidence. Each rule is one function, and silent unless it is sure.

A rule takes a ``Scene`` (one device, and the part of its time that repeats) and returns a ``Finding`` or None. ``gain_ns`` is an
upper bound of what that part would gain without the cause. It never exceeds the idle and exposed time of the part; for
serialized and narrow kernels, the time in which they leave most of the GPU empty. A user's own rules come from a file
(``load``). docs/reference/findings.md describes each rule with its evidence and its fix.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

from moeprof.analysis.model import Finding
from moeprof.errors import UsageError
from moeprof.findings.merge import merged
from moeprof.findings.rules import communication, copies, device, host, loading, memory, trust
from moeprof.findings.what_if import Scene

Rule = Callable[[Scene], Finding | None]

# The order of findings with equal gains: what spoils the evidence first, then the special before the general.
RULES: tuple[Rule, ...] = (
    trust.dropped_records,
    trust.profiler_overhead,
    copies.pageable_copy,
    host.allocator_in_loop,
    host.first_iteration,
    host.sync_api,
    copies.tiny_copies,
    device.legacy_default_stream,
    device.migration_stall,
    copies.copy_engine_contention,
    copies.same_stream_copy,
    copies.late_issue,
    device.serialized_streams,
    copies.link_bound,
    communication.exposed_communication,
    host.graph_opportunity,
    host.launch_bound,
    host.host_bound,
    device.low_concurrency,
    memory.copy_like_kernels,
    loading.slow_loading,
)


def find(scenes: Sequence[Scene], users: Sequence[Rule] = ()) -> tuple[Finding, ...]:
    """Every finding of every scene, those that share a cause as one (``merge``), the largest gain first.

    A user's rules are applied after the built-in ones.
    """
    rules = (*RULES, *(_checked(rule) for rule in users))
    ordered = [
        (-finding.gain_ns, order, number, finding)
        for number, scene in enumerate(scenes)
        if len(scene.index)
        for order, rule in enumerate(rules)
        if (finding := rule(scene)) is not None
    ]
    ordered.sort(key=lambda entry: entry[:3])
    return merged(scenes, [(number, finding) for _, _, number, finding in ordered])


def _checked(rule: Rule) -> Rule:
    """A user's rule; its failure becomes a UsageError of one line."""

    def checked(scene: Scene) -> Finding | None:
        name = getattr(rule, "__name__", "a rule")
        try:
            finding = rule(scene)
        except Exception as error:  # a user's function may fail in any way
            raise UsageError(f"your rule {name} failed: {type(error).__name__}: {error}", "fix the rule") from error
        if finding is not None and not isinstance(finding, Finding):
            raise UsageError(
                f"your rule {name} returned a {type(finding).__name__}",
                "return a Finding or None: docs/reference/findings.md",
            )
        return finding

    return checked


def load(path: Path) -> tuple[Rule, ...]:
    """The rules of a user's file: its list ``RULES`` of functions from a Scene to a Finding or None.

    Raises:
        UsageError: there is no such file, it does not run, or it has no such list.
    """
    spec = importlib.util.spec_from_file_location("moeprof_own_rules", path) if path.is_file() else None
    if spec is None or spec.loader is None:
        raise UsageError(f"there is no rules file {path}", "give a .py file with a list RULES")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # a user's file may fail in any way
        raise UsageError(f"{path} does not run: {type(error).__name__}: {error}", "fix the file") from error
    rules = getattr(module, "RULES", None)
    if not isinstance(rules, (list, tuple)) or not all(callable(rule) for rule in rules):
        raise UsageError(f"{path} has no list RULES of functions", "see docs/reference/findings.md")
    return tuple(rules)
