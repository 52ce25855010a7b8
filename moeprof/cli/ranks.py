"""``moeprof ranks``: the ranks of one program side by side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeprof.cli import completion as names
from moeprof.cli.options import force_option, json_option, output_option, print_document
from moeprof.errors import UsageError

if TYPE_CHECKING:
    from moeprof.ranks.model import GroupAnalysis
    from moeprof.ranks.slices import JointWindow


@click.command()
@click.argument("path", type=click.Path(path_type=Path), shell_complete=names.captures)
@click.option("--range", "range_name", help="One window for each instance of this NVTX range.")
@click.option("--variant", shell_complete=names.variants, help="Only this variant of a capture.")
@click.option(
    "--link-ceiling",
    type=click.FloatRange(min=0, min_open=True),
    metavar="GB/S",
    help="The measured ceiling of the link between GPUs.",
)
@click.option(
    "--communication", type=click.Path(path_type=Path), help="Your own classes of communication: a .toml file."
)
@output_option("A page to write too.")
@force_option
@json_option
def ranks(path: Path, output: Path | None, force: bool, as_json: bool, **options: Any) -> None:
    """Show which ranks wait for which, and why.

    PATH is a trace of several processes or GPUs, a capture, or a folder of one trace per rank.
    """
    from moeprof.cli.outputs import RankAnalyses
    from moeprof.report import build, text
    from moeprof.report import ranks as report
    from moeprof.storage.capture_folder import refuse_existing

    if output is not None:  # before the analysis, which may take long
        refuse_existing(output, force)
    analyses = _analysed(path, output is not None, **options)
    if output is not None:
        build.write_page(output, force, report.page(analyses))
    if as_json:
        documents = {analysis.variant or analysis.source: analysis for analysis, _ in analyses}
        print_document(next(iter(documents.values())) if len(documents) == 1 else RankAnalyses(documents))
        return
    click.echo("\n\n".join(text.render(report.page((group,))) for group in analyses))
    if output is not None:
        click.echo(f"Wrote {output}")


def _analysed(
    path: Path,
    page: bool,
    range_name: str | None,
    variant: str | None,
    link_ceiling: float | None,
    communication: Path | None,
) -> tuple[tuple[GroupAnalysis, JointWindow | None], ...]:
    """Each group at ``path``, with its drawn window if a ``page`` will be written."""
    from moeprof.ranks import groups as grouping
    from moeprof.report.rank_tables import listed
    from moeprof.trace import classify

    classes = classify.communication(communication) if communication else classify.COMMUNICATION
    groups = [g for g in grouping.groups(path) if variant is None or g.variant == variant]
    if not groups:
        raise UsageError(f"{path} has no variant {variant!r} with a trace", f"see moeprof analyze {path}")
    analyses = []
    for group in groups:
        with_ceiling = group if link_ceiling is None else replace(group, link_ceiling_gb_per_s=link_ceiling)
        from moeprof.cli.progress import counted

        with counted("ranks") as done:
            several = done if len(group.members) > 1 else grouping.silent
            analysis, facts = grouping.analyse_group(with_ceiling, range_name, classes, several)
        ranks = [rank.place.rank for rank in listed(analysis.ranks)] if page else []
        analyses.append((analysis, grouping.drawn(group, facts, analysis, ranks, classes) if page else None))
    return tuple(analyses)
