"""Count the house: files and packages of the root, rows of the contract, circles, rooms and arrows, lines by package.

usage: count_house.py [CHECKOUT]

A room is a package that contains Python files; the root's own files are none. An arrow is a room whose files import from another
room. Imports inside functions and under TYPE_CHECKING count. A circle is a set of files that import each other.
"""

from __future__ import annotations

import argparse
import ast
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
HOSTS = (
    "capture/hosts.py",
    "worker/host_ranks.py",
    "capture/join.py",
    "cli/join.py",
)  # code that only several hosts need


def modules(checkout: Path) -> dict[str, Path]:
    """The file of each module of ``moeprof/``, by its dotted name."""
    files = sorted((checkout / "moeprof").rglob("*.py"))
    names = (".".join(file.relative_to(checkout).with_suffix("").parts) for file in files)
    return {name.removesuffix(".__init__"): file for name, file in zip(names, files, strict=True)}


def imports(files: Mapping[str, Path]) -> dict[str, set[str]]:
    """The modules of the house that each module imports."""
    return {name: {m for m in _imported(file, files) if m != name} for name, file in files.items()}


def _imported(file: Path, files: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module in files:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in files else str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in files)


def circles(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """The sets of modules that reach each other; each module is in at most one."""
    reached = {name: _reached(name, graph) for name in graph}
    groups = {frozenset(m for m in reached[name] if name in reached[m]) for name in graph if name in reached[name]}
    return sorted(map(set, groups), key=sorted)


def _reached(start: str, graph: Mapping[str, set[str]]) -> set[str]:
    """What ``start`` imports, directly or through others."""
    seen: set[str] = set()
    left = list(graph[start])
    while left:
        name = left.pop()
        if name not in seen:
            seen.add(name)
            left += graph[name]
    return seen


def rooms(files: Mapping[str, Path], graph: Mapping[str, set[str]]) -> tuple[set[str], set[tuple[str, str]]]:
    """The rooms, and the arrows between them."""
    room = {name: name if file.name == "__init__.py" else name.rpartition(".")[0] for name, file in files.items()}
    arrows = {(room[name], room[to]) for name, targets in graph.items() for to in targets}
    return set(room.values()) - {"moeprof"}, {(a, b) for a, b in arrows if a != b and "moeprof" not in (a, b)}


def lines(folder: Path) -> int:
    """The lines of the Python files of ``folder``."""
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in folder.rglob("*.py"))


def main(checkout: Path) -> None:
    """Print the counts of a checkout."""
    house, files = checkout / "moeprof", modules(checkout)
    graph = imports(files)
    rooms_, arrows = rooms(files, graph)
    contracts = tomllib.loads((checkout / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    packages = sorted(file.parent for file in house.glob("*/__init__.py"))
    root = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in house.glob("*.py"))
    rows = {
        "files in the root": len(list(house.glob("*.py"))),
        "packages in the root": len(packages),
        "rows of the contract of layers": len(contracts[0]["layers"]),
        "circles": len(circles(graph)),
        "rooms": len(rooms_),
        "arrows": len(arrows),
        "lines that only several hosts need": sum(len((house / name).read_text().splitlines()) for name in HOSTS),
        "lines of moeprof/": lines(house),
        "lines of moeprof/, its root": root,
        **{f"lines of moeprof/{package.name}/": lines(package) for package in packages},
        **{f"lines of {name}/": lines(checkout / name) for name in ("scripts", "tests", "workloads")},
    }
    for name, count in rows.items():
        print(f"{name}: {count:,}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path, nargs="?", default=ROOT)
    main(parser.parse_args().checkout)
