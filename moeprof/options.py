"""Options that several commands share, and how a command prints JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
output_option = click.option("-o", "--output", type=click.Path(path_type=Path), help="Where to write.")
force_option = click.option("-f", "--force", is_flag=True, help="Overwrite what is there.")


def echo_json(value: Any) -> None:
    """One JSON object on stdout."""
    click.echo(json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False))
