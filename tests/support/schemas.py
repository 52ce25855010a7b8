"""The published JSON Schemas of docs/schemas, and how a document breaks one."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
from paths import ROOT

FOLDER = ROOT / "docs" / "schemas"


def published(name: str) -> dict[str, Any]:
    """The schema of a document: "check" for docs/schemas/check.schema.json."""
    schema: dict[str, Any] = json.loads((FOLDER / f"{name}.schema.json").read_text(encoding="utf-8"))
    return schema


CHECK = published("check")


def closed(schema: Any) -> Any:
    """The schema, which now refuses fields that it does not name."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    parts = {key: closed(part) for key, part in schema.items()}
    return parts | {"additionalProperties": False} if isinstance(schema.get("required"), list) else parts


def valid(value: Any, schema: dict[str, Any]) -> list[str]:
    """How ``value`` breaks the schema: the path and the fault of each, the deepest of each union."""
    errors = jsonschema.Draft202012Validator(schema).iter_errors(value)
    worst = (jsonschema.exceptions.best_match([error]) for error in errors)
    return [f"{error.json_path}: {error.message}" for error in worst if error is not None]
