#!/usr/bin/env python3
"""Write docs/schemas: a JSON Schema of what each command prints with --json, from its types (moeprof/cli/outputs.py).

usage: write_schemas.py
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from moeprof.cli.outputs import DOCUMENTS
from moeprof.storage.schema import Schema, schema

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "schemas"

# document -> "Class.field" -> what its type cannot say
KEYWORDS: dict[str, dict[str, Schema]] = {
    "check": {
        "Check.capture": {"description": "as given on the command line"},
        "Check.against": {"description": "'baseline NAME', a path, or null if no rule compares"},
        "Check.created": {"description": "when the capture was made, ISO 8601"},
        "Check.git": {"description": "commit of the workload's checkout, '+dirty' if it had changes"},
        "Check.failed": {"description": "true: exit code 3"},
        "Check.outcomes": {"minItems": 1},
        "Check.unlike": {"description": "how the captures differ"},
        "Check.notes": {"description": "warnings of the capture"},
        "Outcome.rule": {"minLength": 1},
        "Outcome.metric": {"minLength": 1},
        "Outcome.operator": {"enum": ["<", "<=", ">", ">="]},
        "Outcome.reason": {"minLength": 1},
        "Outcome.noise": {"minimum": 0},
    },
}


def documents() -> dict[str, str]:
    """The text of each schema by its file name."""
    return {
        f"{name}.schema.json": json.dumps(schema(types, _title(name), KEYWORDS.get(name)), indent=1) + "\n"
        for name, types in DOCUMENTS.items()
    }


def _title(name: str) -> str:
    return "moeprof --json, if it fails" if name == "error" else f"moeprof {name.replace('-', ' ')} --json"


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "").parse_args()
    for name, text in documents().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(f"Wrote {FOLDER / name}")
