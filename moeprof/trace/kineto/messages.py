"""What torch.profiler says of a collective's message, beside the kernel that moves it.

The arguments are those of ``record_param_comms``, which newer Kineto writes on the kernel too (libkineto,
ParamCommsUtils): "Collective name", "In msg nelems", "Out msg nelems", "dtype", "Group size", "Process Group Name",
"Process Group Ranks", "Seq". Traces of older torch have none of them.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from moeprof.trace.tables import MESSAGES, table

NAME = "Collective name"
# torch's names of element types (c10/core/ScalarType.h) -> bytes
DTYPES = {
    "bool": 1, "byte": 1, "char": 1, "short": 2, "int": 4, "long": 8, "half": 2, "bfloat16": 2, "float": 4, "double": 8,
    "complexfloat": 8, "complexdouble": 16, "uint16": 2, "uint32": 4, "uint64": 8, "float16": 2, "float32": 4, "float64": 8,
    "int8": 1, "uint8": 1, "int16": 2, "int32": 4, "int64": 8,
}  # fmt: skip


def of_events(events: list[dict[str, Any]], zero: int) -> pd.DataFrame:
    """The table MESSAGES of the kernels that name their collective."""
    kernels = [e for e in events if e.get("cat") == "kernel" and NAME in e["args"]]
    if not kernels:
        return table(MESSAGES, {})
    args = [e["args"] for e in kernels]
    columns = {
        "start_ns": [e["start"] - zero for e in kernels], "end_ns": [e["end"] - zero for e in kernels],
        "device": [_number(a.get("device", 0)) for a in args], "stream": [_number(a.get("stream")) for a in args],
        "collective": [str(a[NAME]) for a in args], "group": [_group(a) for a in args],
        "group_size": [_number(a.get("Group size")) for a in args], "bytes": [_bytes(a) for a in args],
        "per_rank": [0] * len(args), "sequence": [_number(a.get("Seq")) for a in args],
    }  # fmt: skip
    return table(MESSAGES, columns)


def element_bytes(dtype: str) -> int:
    """Bytes of one element; -1 for a type that is not known."""
    plain = dtype.lower().removeprefix("torch.")
    return 1 if plain.startswith("float8") else DTYPES.get(plain, -1)


def _bytes(args: dict[str, Any]) -> int:
    """Of the larger of input and output; -1 where the trace does not tell."""
    size = element_bytes(str(args.get("dtype", "")))
    elements = max(_number(args.get("In msg nelems")), _number(args.get("Out msg nelems")))
    return elements * size if size > 0 and elements > 0 else -1


def _group(args: dict[str, Any]) -> str:
    """The process group: its name and, where they are told, its ranks (a long list is cut off by torch itself)."""
    name, ranks = str(args.get("Process Group Name", "")), args.get("Process Group Ranks")
    return f"{name} {ranks}".strip() if ranks else name


def _number(value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return -1
    return number if -1 <= number < 1 << 61 else -1
