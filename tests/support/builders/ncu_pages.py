"""Pages of ncu for tests: the recorded ones of an H200 with source pages beside them, made in the two views that ncu prints.

No source page was recorded; these follow the columns that ncu 2023 to 2026 print (Address, Source, Warp Stall Sampling, stall_*).
"""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from statistics import median

SOFTMAX = "cunn_SoftMaxForwardReg"
GEMM = "nvjet_sm90_tst_256x128_64x4_1x2_h_bz_coopA_NNT"
STALLS = ("stall_barrier", "stall_long_sb", "stall_math", "stall_barrier (Not Issued)")
COLUMNS = (
    "Warp Stall Sampling (All Samples)",
    "Warp Stall Sampling (Not-issued Samples)",
    "# Samples",
    "Instructions Executed",
    *STALLS,
)
# address, instruction, samples, executed, (barrier, long_sb, math)
GEMM_SASS = (
    ("7f5c00100000", "LDC R1, c[0x0][0x28]", 3, 1584, (1, 2, 0)),
    ("7f5c00100010", "HGMMA.64x128x16.F32.BF16 R24, gdesc[UR8], R24", 120, 2097152, (20, 10, 90)),
    ("7f5c00100020", "@!P0 SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [R3], R4", 77, 9000, (70, 7, 0)),
)


def text(rows: Iterable[Sequence[object]]) -> str:
    """As ncu quotes it."""
    made = io.StringIO()
    csv.writer(made, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    return made.getvalue()


def cells(samples: int, executed: int, stalls: Sequence[int]) -> list[str]:
    """The columns of COLUMNS; thousands are grouped."""
    return [f"{n:,}" for n in (samples, samples // 2, samples, executed, *stalls, 99_999)]


def sass_page(
    launches: int = 2, kernel: str = GEMM, rows: Sequence[tuple[str, str, int, int, Sequence[int]]] = GEMM_SASS
) -> str:
    """--print-source sass: a block per launch."""
    lines: list[Sequence[object]] = []
    for _ in range(launches):
        lines += [("Kernel Name", kernel), ("Address", "Source", *COLUMNS)]
        lines += [
            (address, instruction, *cells(samples, executed, stalls))
            for address, instruction, samples, executed, stalls in rows
        ]
    return text(lines)


def lines_page(kernel: str = GEMM) -> str:
    """--print-source cuda,sass: a block a file; a line of source, then its instructions. The last line stands alone."""
    a, b, c = GEMM_SASS
    head = ("Line No", "Source", "Address", "Source", *COLUMNS)
    rows: list[Sequence[object]] = [
        ("File Path", "/home/somebody/work/gemm.cu"), ("Function Name", kernel), head,
        ("41", "  const float *p = q;", "-", "-", *cells(a[2], a[3], a[4])),
        ("", "", a[0], a[1], *cells(*a[2:])),
        ("57", "  mma(c, a, b);", "-", "-", *cells(b[2] + c[2], b[3] + c[3], [x + y for x, y in zip(b[4], c[4], strict=True)])),
        ("", "", b[0], b[1], *cells(*b[2:])),
        ("", "", c[0], c[1], *cells(*c[2:])),
        ("File Path", "/home/somebody/work/tile.cuh"), ("Function Name", kernel), head,
        ("7", "  barrier.wait();", "-", "-", *cells(11, 5, (11, 0, 0))),
    ]  # fmt: skip
    return text(rows)


def folder(target: Path, traces: Path) -> Path:
    """All four pages under the names that ``moeprof inspect`` gives them."""
    target.mkdir(exist_ok=True)
    for page in ("raw", "details"):
        shutil.copyfile(traces / "h200" / f"ncu_{page}.csv", target / f"{page}.csv")
    (target / "source-sass.csv").write_text(sass_page())
    (target / "source-lines.csv").write_text(lines_page())
    return target


SCALES = {
    "us": 1e3,
    "Mbyte": 1e6,
    "Gbyte": 1e9,
    "Tbyte/s": 1e12,
    "Gbyte/s": 1e9,
    "Kbyte/cycle": 1e3,
    "Ghz": 1e9,
    "Kbyte/block": 1e3,
}
Value = Callable[[str], float | None]


@cache
def column(path: Path, kernel: str) -> Value:
    """Metric -> median over a kernel's launches, in base units, read with csv alone."""
    rows = list(
        csv.reader(line for line in path.read_text().splitlines() if line.strip() and not line.startswith("=="))
    )
    names, units, body = rows[0], rows[1], [row for row in rows[2:] if kernel in row[rows[0].index("Kernel Name")]]

    def value(metric: str) -> float | None:
        if metric not in names:
            return None
        at = names.index(metric)
        return median(float(row[at].replace(",", "")) * SCALES.get(units[at], 1.0) for row in body)

    return value
