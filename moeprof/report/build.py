"""What ``moeprof report`` does: compare, render and write one page, whole or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moeprof import resources
from moeprof.analysis.device import views
from moeprof.compare import variants
from moeprof.compare.traces import Side
from moeprof.compare.traces import contrast as contrast_traces
from moeprof.errors import CaptureError, UsageError
from moeprof.loaded import capture
from moeprof.loaded.capture import Capture
from moeprof.loaded.trace import analysis_of
from moeprof.report import html, ranklist, text, traces
from moeprof.storage.capture_folder import OUTPUT, newest
from moeprof.storage.files import PARTIAL, write_whole
from moeprof.storage.json import encode
from moeprof.trace import open_trace


@dataclass(frozen=True)
class Written:
    """The page that was written, its short form for the terminal, and the contrast as data."""

    page: Path
    text: str
    data: Any


def load(captures: tuple[Path, ...], sample: str | None) -> tuple[Capture, ...]:
    """The captures to show: those named, the sample, or the newest."""
    if sample is not None:
        return (capture.load(resources.shipped("samples", sample)),)
    if len(captures) > 2:
        raise UsageError(f"a report shows one capture or contrasts two, found {len(captures)}", "name one or two")
    if not captures:
        found = newest(OUTPUT)
        if found is None:
            raise CaptureError(
                "there is no capture in ./moeprof-out",
                "make one: moeprof capture kv_transfer, or see --sample kv_transfer",
            )
        captures = (found,)
    return tuple(capture.load(folder) for folder in captures)


def write(studies: tuple[Capture, ...], contrast: bool, output: Path | None, force: bool) -> Written:
    """Render ``studies`` (one, or two to contrast) and write the page to ``output`` or ``moeprof-out/NAME[-diff].html``.

    Raises:
        UsageError: the page exists and ``force`` is not given, or two captures were named without ``--diff``.
    """
    if len(studies) == 2 and not contrast:
        raise UsageError("two captures were named", "add --diff to contrast them")
    page = _page(output, _default(studies, contrast), force)
    if len(studies) == 2:
        result = variants.contrast_captures(*studies)
        body = html.render_pair(*studies, result)
        shown = text.diff_text(result)
    elif contrast:
        result = variants.contrast(studies[0])
        body, shown = html.render(studies[0], result), text.diff_text(result)
    else:
        result = variants.contrast(studies[0])
        body, shown = html.render_single(studies[0]), text.study_text(result)
    ranks = [text.table_text(found) for s in studies if (found := ranklist.table(s.manifest)).rows]
    return _written(page, body, "\n".join([shown, *ranks]), result)


def write_page(page: Path, force: bool, body: str) -> None:
    """Write a page that was named by the user; raises UsageError where it exists and ``force`` is not given."""
    _page(page, page, force)
    page.parent.mkdir(parents=True, exist_ok=True)
    write_whole(page, body)


def _page(output: Path | None, default: Path, force: bool) -> Path:
    """Where the page goes: what the user named is not overwritten without ``force``."""
    if output is not None and output.exists() and not force:
        raise UsageError(f"{output} exists", "choose another -o, or add --force")
    return output or default


def _written(page: Path, body: str, shown: str, result: Any) -> Written:
    page.parent.mkdir(parents=True, exist_ok=True)
    write_whole(page, body)
    return Written(page, shown, encode(result))


def _default(studies: tuple[Capture, ...], contrast: bool) -> Path:
    stem = "-vs-".join(s.folder.name.removesuffix(PARTIAL) for s in studies)
    return OUTPUT / f"{stem}{'-diff' if contrast else ''}.html"


def write_traces(paths: tuple[Path, Path], range_name: str | None, output: Path | None, force: bool) -> Written:
    """Contrast two traces and write the page to ``output`` or ``moeprof-out/A-vs-B-diff.html``.

    Raises:
        UsageError: the page exists and ``force`` is not given, or a trace has no work or not that range.
    """
    page = _page(output, OUTPUT / f"{'-vs-'.join(_stem(path) for path in paths)}-diff.html", force)
    found = contrast_traces(_side(paths[0]), _side(paths[1]), range_name)
    return _written(page, traces.render(found), traces.text(found), found)


def _stem(path: Path) -> str:
    return path.name.split(".")[0]


def _side(path: Path) -> Side:
    with open_trace(path) as trace:
        prepared = views(trace)
        return Side(path.name, trace, prepared, analysis_of(trace, prepared=prepared))
