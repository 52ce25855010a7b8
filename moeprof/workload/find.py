"""Find a workload by its name, through entry points, or by the path of a file that declares one."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from moeprof.errors import MoeprofError, UsageError, choices
from moeprof.workload.model import Workload

GROUP = "moeprof.workloads"
DECLARED = "WORKLOAD"  # what a workload's file assigns


@dataclass(frozen=True)
class Listed:
    """One line of ``moeprof list``: a workload, or the reason why it does not load."""

    name: str
    workload: Workload | None
    reason: str = ""


def listing() -> tuple[Listed, ...]:
    """Every registered workload, sorted by name; one that does not import is listed with the reason."""
    return tuple(_listed(point) for point in sorted(entry_points(group=GROUP), key=lambda p: p.name))


def _listed(point: EntryPoint) -> Listed:
    try:
        return Listed(point.name, _checked(point.load(), point.value))
    except Exception as error:  # a third party's module may fail in any way
        return Listed(point.name, None, f"{type(error).__name__}: {error}")


def registered() -> tuple[str, ...]:
    """The names of all registered workloads, without importing them."""
    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))


def load(name: str) -> Workload:
    """The workload registered as ``name``, or declared in the file at path ``name``.

    Raises:
        UsageError: the name or file does not exist, or the file does not declare ``WORKLOAD``.
    """
    if name.endswith(".py") or "/" in name:
        return _from_file(Path(name))
    points = [p for p in entry_points(group=GROUP) if p.name == name]
    if not points:
        hint = choices(name, registered(), "workloads")
        raise UsageError(f"there is no workload {name!r}", f"{hint}; or give the path of a .py file")
    if len({p.value for p in points}) > 1:
        raise UsageError(
            f"workload {name!r} is registered twice: {', '.join(p.value for p in points)}", "uninstall one"
        )
    return _import(points[0].load, points[0].value)


def declares_workload(path: Path) -> bool:
    """Whether the file assigns or imports ``WORKLOAD`` in its own body, or cannot be parsed. It is not run.

    A program of the user's that is given in place of a workload would otherwise run to its end before that is noticed.
    """
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (SyntaxError, ValueError):
        return True
    return any(_binds(node, DECLARED) for node in ast.walk(tree))


def _binds(node: ast.AST, name: str) -> bool:
    if isinstance(node, ast.Name):
        return node.id == name and isinstance(node.ctx, ast.Store)
    if isinstance(node, ast.ImportFrom | ast.Import):
        return any((alias.asname or alias.name) in (name, "*") for alias in node.names)
    return isinstance(node, ast.Constant) and node.value == name  # globals()["WORKLOAD"], setattr


def _from_file(path: Path) -> Workload:
    if not path.is_file():
        raise UsageError(
            f"there is no workload file {str(path)!r}", "give the path of a .py file that declares WORKLOAD"
        )
    name = f"moeprof_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    loader = spec.loader

    def execute() -> Any:
        loader.exec_module(module)
        return getattr(module, DECLARED, None)

    return _import(execute, str(path))


def _import(loader: Callable[[], Any], where: str) -> Workload:
    try:
        declared = loader()
    except MoeprofError:
        raise
    except Exception as error:
        raise UsageError(
            f"{where} does not import: {type(error).__name__}: {error}", "run it with python to see where"
        ) from error
    return _checked(declared, where)


def _checked(declared: Any, where: str) -> Workload:
    if not isinstance(declared, Workload):
        raise UsageError(
            f"{where} declares no WORKLOAD (found {type(declared).__name__})",
            "end the module with WORKLOAD = Workload(...)",
        )
    names = [v.name for v in declared.variants]
    for role, name in (("baseline", declared.baseline), ("optimized", declared.optimized)):
        if name not in names:
            raise UsageError(
                f"{where}: {role} {name!r} is not one of its variants", f"its variants: {', '.join(names)}"
            )
    return declared
