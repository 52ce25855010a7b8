"""What an nsys export says of itself: its producer and schema, the GPUs, how streams were made, what the profiler reported."""

from __future__ import annotations

from typing import Any

from moeprof.trace.nsys.export import Export
from moeprof.trace.tables import Device

DIAGNOSTIC_LENGTH = 240  # characters of a diagnostic text that are kept; severity 2 is a warning, 3 an error
STREAMS = {1: "blocking", 2: "nonblocking", 3: "null"}  # CUpti_ActivityStreamFlag
TID_MASK = 0xFFFFFF  # a thread or process id takes 24 bits
_STREAM = {"processId": 0, "contextId": -1, "streamId": -1, "flag": -1}
_META = ("META_DATA_EXPORT", "EXPORT_META_DATA", "META_DATA_CAPTURE")


def producer(export: Export) -> str | None:
    """ "nsys 2025.3.1", where the export says so."""
    version = _meta(export, "EXPORT_PRODUCT_VERSION", "EXPORTER_VERSION", "EXPORT_TOOL_VERSION", "PRODUCT_VERSION")
    return f"nsys {version}" if version else None


def schema(export: Export) -> str | None:
    """ "3.20.3"; exports of 2020 and 2021 have none."""
    version = _meta(export, "EXPORT_SCHEMA_VERSION")
    if version:
        return version
    parts = [_meta(export, f"EXPORT_SCHEMA_VERSION_{part}") for part in ("MAJOR", "MINOR", "MICRO")]
    return ".".join(p for p in parts if p) or None


def _meta(export: Export, *keys: str) -> str | None:
    for name in (name for name in _META if name in export.tables):
        values = dict(export.rows(f"SELECT name, value FROM {name}"))
        for key in keys:
            if values.get(key):
                return str(values[key])
    return None


def devices(export: Export) -> tuple[Device, ...]:
    """The GPUs; a number that is none (damage) is not known."""
    if "TARGET_INFO_GPU" not in export.tables:
        return ()
    there = export.columns("TARGET_INFO_GPU")
    picked = [c if c in there else "NULL" for c in ("id", "name", "memoryBandwidth", "smCount")]
    rows = export.rows(f"SELECT {', '.join(picked)} FROM TARGET_INFO_GPU ORDER BY 1")
    return tuple(
        Device(id, None if name is None else str(name), _positive(bandwidth), _positive(sms))
        for id, name, bandwidth, sms in rows
        if isinstance(id, int)
    )


def _positive(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def streams(export: Export) -> dict[tuple[int, int, int], str]:
    """(pid, context, stream) -> "null", "blocking" or "nonblocking"."""
    raw = export.integers("TARGET_INFO_CUDA_STREAM", _STREAM)
    keys = zip(*(raw[name].tolist() for name in ("processId", "contextId", "streamId", "flag")), strict=True)
    return {(pid & TID_MASK, context, stream): STREAMS[flag] for pid, context, stream, flag in keys if flag in STREAMS}


def diagnostics(export: Export) -> list[str]:
    """The profiler's own warnings and errors."""
    if "DIAGNOSTIC_EVENT" not in export.tables:
        return []
    query = "SELECT DISTINCT text FROM DIAGNOSTIC_EVENT WHERE severity IN (2, 3) ORDER BY text"
    return [" ".join(str(row[0]).split())[:DIAGNOSTIC_LENGTH] for row in export.rows(query) if row[0]]
