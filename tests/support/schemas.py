"""JSON schemas of the documents, and what breaks one: the keywords that they use, and no other."""

from __future__ import annotations

import json
from typing import Any

from paths import ROOT

CHECK = json.loads((ROOT / "docs" / "schemas" / "check.schema.json").read_text())


def valid(value: Any, schema: dict[str, Any], path: str = "$") -> list[str]:
    """What of ``value`` breaks the schema."""
    known = {"$schema", "$id", "$defs", "$ref", "title", "description", "type", "required", "properties", "const", "enum", "items", "minItems", "minLength", "minimum", "anyOf"}  # fmt: skip
    assert set(schema) <= known, set(schema) - known
    if "$ref" in schema:
        return valid(value, CHECK["$defs"][schema["$ref"].removeprefix("#/$defs/")], path)
    if "anyOf" in schema:
        tried = [valid(value, option, path) for option in schema["anyOf"]]
        return [] if [] in tried else min(tried, key=len)
    kinds: dict[str, Any] = {"object": dict, "array": list, "string": str, "number": (int, float), "boolean": bool, "null": type(None)}  # fmt: skip
    types = [schema.get("type", [])] if isinstance(schema.get("type"), str) else schema.get("type", [])
    if types and not any(
        isinstance(value, kinds[t]) and (t == "boolean" or not isinstance(value, bool)) for t in types
    ):
        return [f"{path}: {value!r} is no {types}"]
    faults = (
        [f"{path}: {value!r}"]
        if value not in schema.get("enum", [value]) or value != schema.get("const", value)
        else []
    )
    if isinstance(value, (str, list)):
        faults += [f"{path}: too short"] if len(value) < schema.get("minLength", schema.get("minItems", 0)) else []
    if isinstance(value, (int, float)):
        faults += [f"{path}: too small"] if value < schema.get("minimum", value) else []
    if isinstance(value, dict):
        faults += [f"{path}.{name} is missing" for name in schema.get("required", []) if name not in value]
        faults += [f for name, part in schema.get("properties", {}).items() if name in value for f in valid(value[name], part, f"{path}.{name}")]  # fmt: skip
    if isinstance(value, list) and "items" in schema:
        faults += [f for i, item in enumerate(value) for f in valid(item, schema["items"], f"{path}[{i}]")]
    return faults
