"""The memory chart of a kernel: bytes over each link from the SM to device memory, hit rates, sectors per request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from moeprof.machine.ncu_metrics import DRAM_BYTES, DRAM_READ, DRAM_WRITE, L1_HIT_RATE, L2_HIT_RATE

SECTOR_BYTES = 32
GLOBAL = "l1tex__t_{}_pipe_lsu_mem_global_op_{}.sum"
LOCAL = "l1tex__t_{}_pipe_lsu_mem_local_op_{}.sum"
TMA_READ = "l1tex__m_xbar2l1tex_read_bytes_mem_global_op_tma_ld.sum"
TMA_WRITE = "l1tex__m_l1tex2xbar_write_bytes_mem_global_op_tma_st.sum"
L2_READ, L2_WRITE = "l1tex__m_xbar2l1tex_read_bytes.sum", "l1tex__m_l1tex2xbar_write_bytes.sum"
L2 = "lts__t_{}_srcunit_tex_op_{}.sum"
WAVEFRONTS = "l1tex__data_pipe_lsu_wavefronts_mem_shared.sum"
CONFLICTS = "l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum"
KINDS = ("sectors", "requests")
METRICS = (
    *(GLOBAL.format(kind, op) for kind in KINDS for op in ("ld", "st")),
    *(LOCAL.format(kind, op) for kind in KINDS for op in ("ld", "st")),
    L1_HIT_RATE, L2_READ, L2_WRITE, L2_HIT_RATE,
    *(L2.format(kind, op) for kind in KINDS for op in ("read", "write")),
    DRAM_READ, DRAM_WRITE, WAVEFRONTS, CONFLICTS,
)  # fmt: skip


@dataclass(frozen=True)
class Link:
    """Traffic of one link. ``hit_percent``: of the cache that it ends in; ``*_per_request``: sectors of 32 bytes."""

    name: str
    read_bytes: float | None
    write_bytes: float | None
    hit_percent: float | None = None
    read_sectors_per_request: float | None = None
    write_sectors_per_request: float | None = None


@dataclass(frozen=True)
class MemoryChart:
    """All links that were counted, from the SM outwards. ``dram_bytes``: both ways. Shared memory in wavefronts (passes of its
    data pipe), of which ``shared_conflicts`` were for bank conflicts."""

    links: tuple[Link, ...]
    dram_bytes: float | None
    shared_wavefronts: float | None
    shared_conflicts: float | None


def memory_chart(values: Mapping[str, float]) -> MemoryChart:
    """From the counters of one kernel, metric -> value in base units."""
    links = (
        _lsu(values, "global loads and stores to L1", GLOBAL, L1_HIT_RATE),
        _lsu(values, "local memory (spills, stacks) to L1", LOCAL, None),
        Link("bulk copies (TMA), past L1", values.get(TMA_READ), values.get(TMA_WRITE)),
        Link(
            "L1 to L2", values.get(L2_READ), values.get(L2_WRITE), values.get(L2_HIT_RATE),
            _ratio(values, L2, "read"), _ratio(values, L2, "write"),
        ),
        Link("L2 to device memory", values.get(DRAM_READ), values.get(DRAM_WRITE)),
    )  # fmt: skip
    return MemoryChart(
        tuple(link for link in links if _told(link)), dram_bytes(values), values.get(WAVEFRONTS), values.get(CONFLICTS)
    )


def dram_bytes(values: Mapping[str, float]) -> float | None:
    """Bytes to and from device memory of one launch: their sum, or both ways; None where they were not counted."""
    read, written = values.get(DRAM_READ), values.get(DRAM_WRITE)
    return values[DRAM_BYTES] if DRAM_BYTES in values else None if read is None or written is None else read + written


def _lsu(values: Mapping[str, float], name: str, metric: str, hit: str | None) -> Link:
    read, written = values.get(metric.format("sectors", "ld")), values.get(metric.format("sectors", "st"))
    return Link(
        name, _bytes(read), _bytes(written), values.get(hit) if hit else None, _ratio(values, metric, "ld"), _ratio(values, metric, "st")
    )  # fmt: skip


def _bytes(sectors: float | None) -> float | None:
    return None if sectors is None else sectors * SECTOR_BYTES


def _ratio(values: Mapping[str, float], metric: str, op: str) -> float | None:
    """Sectors a request; absent where there was no request."""
    sectors, requests = (values.get(metric.format(kind, op)) for kind in KINDS)
    return sectors / requests if sectors is not None and requests else None


def _told(link: Link) -> bool:
    """Whether it was counted; what a kernel need not use (TMA, local memory) also has to be used."""
    amounts = (link.read_bytes, link.write_bytes)
    if link.name.startswith(("local", "bulk")):
        return any(amounts)
    return any(amount is not None for amount in (*amounts, link.hit_percent))
