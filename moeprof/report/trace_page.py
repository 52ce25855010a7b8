"""The page of any one trace, and of the capture of a user's program: the answer first, then what it rests on."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace

from markupsafe import Markup

from moeprof import units
from moeprof.analysis.model import Analysis, Judged, Window
from moeprof.loaded.capture import Capture, CapturedVariant
from moeprof.notes import Note
from moeprof.report import analysis as printed
from moeprof.report import tables
from moeprof.report.figures import passes
from moeprof.report.figures.passes import FAMILIES, Part, css_of, legend
from moeprof.report.figures.style import IDLE, LEDGER
from moeprof.report.figures.timeline_canvas import timeline
from moeprof.report.figures.timeline_data import Timeline
from moeprof.report.figures.timeline_places import Pass
from moeprof.report.glossary import used
from moeprof.report.narrative.finding import elsewhere, follows
from moeprof.report.narrative.trace import Answer, answer, device_of
from moeprof.report.page import Drawing, Fact, Facts, Page, Paragraph, Section, Table, glossary, notes, section
from moeprof.report.trace_sections import sections
from moeprof.storage.json import encode
from moeprof.trace import Trace

CPU = "CPU"  # the name of a device that is no GPU
SHORT_FINDINGS, SHORT_DEVICES = 3, 4  # what the terminal shows
PARTS = (*LEDGER, *IDLE)
BARS = (Part("compute", css_of("compute_ns"), "compute_ns", "ledger"), *passes.PARTS)
RECORD = Fact("Next", "See what this machine can record:", "moeprof doctor")


def page(trace: Trace, analysis: Analysis, drawn: Timeline, name: str) -> Page:
    """The page of one trace.

    Args:
        analysis: of the whole trace, with its findings.
        drawn: its timeline, whose flags are those findings.
        name: the trace as the reader knows it: the path that was given.
    """
    answer_ = answer(analysis, cpus(trace))
    compare = f"moeprof report {shlex.quote(name)} AFTER{_suffix(name)}"
    shown = (
        _answer(answer_, analysis, drawn, compare),
        *_body(trace, analysis, drawn, trace.path.name, answer_),
        *_notes(analysis.notes),
        *_missing(trace, analysis, "moeprof inspect --kernel REGEX -- PROGRAM"),
    )
    return _explained(Page(answer_.headline, _facts(trace, analysis, trace.path.name), shown, data=encode(analysis)))


def program(capture: Capture, drawn: Timeline | None) -> Page:
    """The page of the capture of a user's program; ``drawn``: the timeline of its trace, None where it was not traced."""
    variant = capture.variants[0] if capture.variants else None
    trace, analysis = (None, None) if variant is None else (variant.trace, variant.analysis)
    if variant is None or trace is None or analysis is None or drawn is None:
        return _untraced(capture, variant)
    folder = str(capture.folder)
    answer_ = answer(analysis, cpus(trace))
    compare = f"moeprof report {shlex.quote(folder)} AFTER"
    shown = (
        _answer(answer_, analysis, drawn, compare),
        *_body(trace, analysis, drawn, capture.manifest.name, answer_),
        *_notes((*capture.manifest.notes, *analysis.notes)),
        *_missing(trace, analysis, f"moeprof inspect {shlex.quote(folder)} --kernel REGEX"),
        _environment(capture),
    )
    return _explained(Page(answer_.headline, _facts(trace, analysis, _command(capture)), shown, data=encode(analysis)))


def passes_shown(analysis: Analysis) -> tuple[Pass, ...] | None:
    """The passes that the timeline marks: those of the device that computes most; None where the analysis has none."""
    most = max(analysis.passes, key=lambda of: (sum(p.ledger.compute_ns for p in of.passes), -of.device), default=None)
    return None if most is None else tuple(Pass(p.start_ns, p.end_ns, p.name) for p in most.passes)


def _untraced(capture: Capture, variant: CapturedVariant | None) -> Page:
    reason = variant.record.reason if variant is not None else ""
    why = (Fact("Why", f"{reason}."),) if reason else ()
    shown = (
        Section("answer", above=(Facts((*why, RECORD)),), style="answer"),
        *_notes(capture.manifest.notes),
        _environment(capture),
    )
    return Page("The program was not traced", _command(capture), shown)


def _command(capture: Capture) -> str:
    """The program as it was started."""
    words = capture.manifest.argv
    return shlex.join(words[words.index("--") + 1 :] if "--" in words else words)


def cpus(trace: Trace) -> frozenset[int]:
    """The devices of a trace that are no GPU: torch.profiler records the CPU's work where there is none."""
    return frozenset(d.index for d in trace.devices if d.name == CPU)


def _device_names(trace: Trace, analysis: Analysis) -> dict[int, str]:
    indices = {w.device for w in analysis.windows} | {k.device for k in analysis.kernels}
    return {i: CPU if i in cpus(trace) else f"GPU {i}" for i in indices}


def _suffix(name: str) -> str:
    """What a second trace of the same kind is called at its end."""
    return next((s for s in (".json.gz", ".json", ".nsys-rep") if name.endswith(s)), ".sqlite")


def _facts(trace: Trace, analysis: Analysis, name: str) -> str:
    """What was recorded, with what, for how long, on what."""
    longest = max((w.span_ns for w in analysis.windows), default=None)
    models: dict[str, int] = {}
    for device in trace.devices:
        if device.name and any(w.device == device.index for w in analysis.windows):
            models[device.name] = models.get(device.name, 0) + 1
    parts = (
        name, trace.producer or trace.kind, "" if longest is None else f"{units.ms(longest)} traced",
        *(f"{count} × {model}" for model, count in models.items()),
    )  # fmt: skip
    return " · ".join(text for text in parts if text)


def _answer(answer_: Answer, analysis: Analysis, drawn: Timeline, compare: str) -> Section:
    if not analysis.windows:
        return Section("answer", above=(Facts((RECORD,)),), style="answer")
    lines = [Fact("Slow", answer_.slow), Fact("Judged", answer_.judged)]
    if answer_.finding is not None:
        number = analysis.findings.index(answer_.finding) + 1
        flag = next((f for f in drawn.flags if f.number == number), None)
        link = "" if flag is None else flag.fragment(int(drawn.payload["zero_ns"]))
        lines.append(
            Fact("Why", " ".join(text for text in (answer_.why, answer_.evidence, answer_.follows) if text), link=link)
        )
        gain = f" Gain: {answer_.gain}." if answer_.gain else ""
        shared = (
            f" Findings {', '.join(map(str, answer_.shared))} gain from the same time: do not add them."
            if answer_.shared
            else ""
        )
        lines.append(Fact("Try", f"{answer_.remedy}{gain}{shared}"))
        lines.append(Fact("Next", "Change it, record again, and compare:", compare))
    return Section("answer", above=(Facts(tuple(lines)),), style="answer")


def _body(trace: Trace, analysis: Analysis, drawn: Timeline, name: str, answer_: Answer) -> Iterator[Section]:
    """What has data, in the order of reading."""
    names = _device_names(trace, analysis)
    if analysis.windows:
        note = "Every nanosecond has one owner: compute, else communication, copy, migration, memset, else idle by its cause."
        ledger = section(
            "ledger",
            "Where the time goes",
            note,
            _bars(analysis, names),
            (_ledger(_parts(analysis), names),),
            "summary",
        )
        yield replace(ledger, open="none")
        figure = Drawing(timeline(drawn, what=name), timeline=True)
        yield Section("timeline", "Timeline", figure=figure)
    if analysis.findings:
        note = "The largest gain first. A gain is an upper bound; gains overlap, so do not add them."
        yield section("findings", "Findings", note, None, (_findings(analysis, names),), "summary")
    main = None if answer_.finding is None else device_of(answer_.finding)
    yield from sections(analysis, names, int(drawn.payload["zero_ns"]), main)
    if not analysis.range_tree:
        ranges = printed.ranges_table(analysis)
        if ranges.rows:
            note = "Host time, and the span of the GPU work that was launched inside."
            yield section("ranges", "Ranges", note, None, (ranges,))


def _parts(analysis: Analysis) -> tuple[Window | Judged, ...]:
    """What has a ledger: of each device the judged part, where it is not all of it, and the whole trace."""
    judged = {part.device: part for part in analysis.judged}
    parts: list[Window | Judged] = []
    for window in analysis.windows:
        part = judged.get(window.device)
        parts += [window] if part is None or part.span_ns >= window.span_ns else [part, window]
    return tuple(parts)


def _named(part: Window | Judged, names: dict[int, str]) -> str:
    return f"{names[part.device]}, judged" if isinstance(part, Judged) else names[part.device]


def _ledger(windows: tuple[Window | Judged, ...], names: dict[int, str]) -> Table:
    """A row for each owner that has time, a column for each device."""
    rows = []
    for label, key, _ in PARTS:
        values = [(getattr(w.idle if label.startswith("idle") else w.ledger, key), w.span_ns) for w in windows]
        if any(ns for ns, _ in values):
            rows.append(
                (label, *(f"{units.ms(ns)} ({units.percent(ns / span if span else None)})" for ns, span in values))
            )
    rows.append(("sum", *(units.ms(w.span_ns) for w in windows)))
    idle = [(w.ledger.idle_ns, w.span_ns) for w in windows]
    if any(ns for ns, _ in idle):
        shares = (f"{units.ms(ns)} ({units.percent(ns / span if span else None)})" for ns, span in idle)
        rows.append(("of which idle", *shares))
    columns = tuple(_named(w, names) for w in windows)
    judged = {w.device for w in windows if isinstance(w, Judged)}
    whole = tuple(_named(w, names) for w in windows if isinstance(w, Window) and w.device in judged)
    header = ("owner", *columns)
    return Table("Where the time goes", header, tuple(rows), wide=columns[SHORT_DEVICES:], optional=whole)


def _bars(analysis: Analysis, names: dict[int, str]) -> Drawing:
    """One bar for each part that has a ledger, its compute by family of kernels; the table has its numbers."""
    rows = [(window, _owned(analysis, window)) for window in _parts(analysis)]
    shown = [part for part in BARS if any(owned.get(part.label) for _, owned in rows)]
    drawn = []
    for window, owned in rows:
        at, rects = 0.0, []
        for part in shown:
            width = 1000 * owned.get(part.label, 0) / max(window.span_ns, 1)
            title = f"{part.label}: {units.ms(owned.get(part.label, 0))}"
            rects.append(
                Markup('<rect class="{}" x="{:.2f}" width="{:.2f}" height="20"><title>{}</title></rect>').format(
                    part.css, at, width, title
                )
            )
            at += width
        drawn.append(
            Markup(
                '<div class="ledger-row"><span>{}</span><svg viewBox="0 0 1000 20" preserveAspectRatio="none" aria-hidden="true">{}</svg></div>'
            ).format(_named(window, names), Markup("").join(rects))
        )
    labelled = legend([(part.label, part.css) for part in shown])
    return Drawing(Markup('<div class="ledger-bars">{}{}</div>').format(Markup("").join(drawn), labelled))


def _owned(analysis: Analysis, window: Window | Judged) -> dict[str, int]:
    """The time of each part of a bar; compute in one piece where its families are not known."""
    of_device = {f.name: f for f in analysis.families if f.device == window.device and f.name in FAMILIES}
    of_device.pop("communication", None)
    whole = isinstance(window, Window)
    families = {FAMILIES[name]: (f.owned_ns if whole else f.judged_ns) or 0 for name, f in of_device.items()}
    owned = {
        label: int(getattr(window.idle if label.startswith("idle") else window.ledger, key)) for label, key, _ in PARTS
    }
    compute = owned.pop("compute")
    if any(w.graph_busy_ns for w in analysis.windows if w.device == window.device):
        families[FAMILIES["graph"]] = max(compute - sum(families.values()), 0)
    return owned | (families if sum(families.values()) == compute else {"compute": compute})


def _findings(analysis: Analysis, names: dict[int, str]) -> Table:
    rows = []
    for number, f in enumerate(analysis.findings, 1):
        device = device_of(f)
        name = units.DASH if device is None else names.get(device, units.DASH)
        claim = " ".join(text for text in (f"{f.claim}.", follows(f, names), elsewhere(f, names)) if text)
        per_pass = units.ms(f.gain_ns / f.passes) if f.passes > 1 else units.DASH
        gains = (units.ms(f.gain_ns), per_pass, units.percent(f.gain_share))
        rows.append((str(number), f.id, name, *gains, claim, f.try_, f.where))
    header = ("no.", "finding", "device", "gain at most", "per pass", "of judged time", "claim", "try", "where")
    return Table("Findings", header, tuple(rows), plain=True, wide=("try", "where"), short=SHORT_FINDINGS)


def _notes(noted: tuple[Note, ...]) -> tuple[Section, ...]:
    return (notes(noted, "warning"),) if noted else ()


def _missing(trace: Trace, analysis: Analysis, inspect: str) -> tuple[Section, ...]:
    """What the recording lacks and how to get it."""
    lacks = []
    if analysis.windows and not analysis.ranges:
        ranges = (
            "torch.profiler.record_function" if trace.kind == "kineto" else "torch.cuda.nvtx.range or nvtx.annotate"
        )
        lacks.append(f"ranges of the program (name its steps with {ranges})")
    if analysis.windows and not analysis.memory and not cpus(trace):
        how = "profile_memory=True" if trace.kind == "kineto" else "nsys profile --cuda-memory-usage=true"
        lacks.append(f"allocations of memory ({how})")
    if not len(trace.calls):
        lacks.append("CUDA calls of the host (record them: nsys profile --trace=cuda,nvtx)")
    if analysis.kernels and not cpus(trace):
        lacks.append(f"hardware counters of kernels ({inspect})")
    text = f"Not in this recording: {'; '.join(lacks)}."
    return (Section("missing", above=(Paragraph(text, "how"),)),) if lacks else ()


def _environment(capture: Capture) -> Section:
    shown = (tables.environment(capture), tables.commands(capture))
    return Section("environment", "Environment and commands", tables=shown)


def _explained(page: Page) -> Page:
    """The page with the words of the glossary that occur on it."""
    terms = used(page)
    return replace(page, terms=terms, sections=(*page.sections, *((_glossary(terms),) if terms else ())))


def _glossary(terms: tuple[tuple[str, str], ...]) -> Section:
    return replace(glossary(terms), folded=True)
