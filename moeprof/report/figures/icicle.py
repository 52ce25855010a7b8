"""GPU time by range as an icicle: data for sections.js, which draws it. The table beside it has the numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping

from markupsafe import Markup

from moeprof.analysis.kernel_families import COMMUNICATION
from moeprof.analysis.model import RangeNode

KINDS = {"all": "all", "range": "range", "outside": "outside"}


def icicle(nodes: tuple[RangeNode, ...], labels: Mapping[str, str], families: Mapping[str, str]) -> Markup:
    """The figure of at least one node.

    Args:
        labels: of operations, by their names.
        families: of kernels, by their names; other operations are copies and memsets.
    """
    rows = [
        [
            labels.get(n.name, n.name) if n.kind == "operation" else n.name,
            KINDS.get(n.kind) or f"fam-{families.get(n.name, 'copy')}", -1 if n.parent is None else n.parent, n.instances, n.gpu_ns,
        ]
        for n in nodes
    ]  # fmt: skip
    text = json.dumps(rows, separators=(",", ":"), ensure_ascii=True)
    text = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Markup(
        '<div class="icicle" role="group" aria-label="GPU time by range. Arrow keys move, Enter zooms, Escape shows all.">'
        '<script type="application/json">{}</script></div>'
    ).format(Markup(text))


def colour_of(family: str | None) -> str:
    """The CSS class of a family of kernels."""
    return f"fam-{family or COMMUNICATION}"
