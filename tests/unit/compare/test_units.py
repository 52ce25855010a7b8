"""Units of work: known, or no claim. Each planted pair has a wrong direction, which no page may claim."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from builders.step_programs import ATTENTION, EAGER, GROUPED, Launch, batched, program

from moeprof.analysis.device import views
from moeprof.compare import programs
from moeprof.compare.traces import DeviceComparison, compare
from moeprof.compare.units import Wanted, family, same_work
from moeprof.errors import UsageError
from moeprof.loaded.analysed_trace import AnalysedTrace
from moeprof.loaded.trace import analysis_of
from moeprof.report import html, text
from moeprof.report import traces as pages
from moeprof.report.narrative.traces import NO_CLAIM, sentences
from moeprof.report.page import Paragraph
from moeprof.storage.manifest import Environment, Manifest
from moeprof.trace import Trace, read

CLAIM = re.compile(r"faster|slower|longer|less time|as long as|ms in A", re.IGNORECASE)
OTHER_MODEL = (
    Launch("conv_fwd", 40_000, 500, 3), Launch("batch_norm", 4_000, 200, 3), Launch("relu", 3_000, 200, 3), Launch("pool", 5_000, 60),
    Launch("rms_norm", 3_000, 64, 5), Launch("argmax", 2_000, 48),
)  # fmt: skip


# the same steps without the kernel that chooses a token: what recurs may be a layer, and no step is known
LAYER, GROUPED_LAYER = (tuple(k for k in step if k.name != "argmax") for step in (EAGER, GROUPED))


def side(shown: Trace, name: str = "t") -> AnalysedTrace:
    return AnalysedTrace(name, shown, views(shown), analysis_of(shown))


def device(before: Trace, after: Trace, wanted: Wanted = Wanted()) -> DeviceComparison:
    (found,) = compare(side(before, "a"), side(after, "b"), wanted).devices
    return found


def no_claim(before: Trace, after: Trace, wanted: Wanted = Wanted()) -> DeviceComparison:
    """Nothing on the page, in the terminal or in JSON says which one is faster."""
    comparison = compare(side(before, "a"), side(after, "b"), wanted)
    (found,) = comparison.devices
    assert found.unit is None and found.source is None and found.waterfall == ()
    said = sentences(found)
    assert said[0] == NO_CLAIM and not any(CLAIM.search(line) for line in said[1:])
    page = pages.page(comparison)
    told = [block.text for s in page.sections if s.id == "verdict" for block in s.above if isinstance(block, Paragraph)]
    assert told and not any(CLAIM.search(line.replace(NO_CLAIM, "")) for line in told)
    headers = {cell for s in page.sections for table in s.tables for cell in table.header}
    assert not headers & {"difference", "speed-up"} and not any(s.id.startswith("waterfall") for s in page.sections)
    assert "neither trace is called faster or slower" in " ".join(text.render(page).split())
    return found


def ratio(found: DeviceComparison) -> float:
    assert found.unit is not None
    return found.after_ns / found.before_ns


def test_fewer_launches_for_the_same_work_are_judged_per_step() -> None:
    """The direction that was wrong: counts of common kernels said that B is slower."""
    before, after = program(EAGER, 10), program(GROUPED, 20)
    found = device(before, after)
    assert (found.unit, found.source, found.units_before, found.units_after) == ("step", "range", 10, 20)
    assert ratio(found) == pytest.approx(1 / 1.5, abs=0.03)
    assert found.before_ns + sum(b.delta_ns for b in found.waterfall) == found.after_ns
    no_claim(program(LAYER, 10, None), program(GROUPED_LAYER, 20, None))
    no_claim(program(LAYER, 10, None), program(GROUPED_LAYER, 10, None))


def test_steps_that_are_found_in_both_are_the_unit() -> None:
    """No range marks them: the kernel that chooses a token shows that they are steps."""
    found = device(program(EAGER, 12, None), program(GROUPED, 30, None))
    assert (found.unit, found.source) == ("step", "steps") and abs(found.units_after - 30) <= 1
    assert ratio(found) == pytest.approx(1 / 1.5, abs=0.03)
    assert ratio(device(program(EAGER, 12, None), program(EAGER, 40, None))) == pytest.approx(1.0, abs=0.001)


def test_families_of_step_ranges_are_one_unit() -> None:
    found = device(program(EAGER, 10, "step_#"), program(GROUPED, 12, "step_#"))
    assert found.unit == "step_#" and ratio(found) == pytest.approx(1 / 1.5, abs=0.03)
    assert family("execute_64_context_3(7, 8)") == family("execute_12_context_1(9)") == "execute_#_context_#(…)"


@pytest.mark.parametrize("marked", ["step", None])
@pytest.mark.parametrize("factor", [2, 8])
def test_another_batch_size_is_no_slower_step(marked: str | None, factor: int) -> None:
    for step in (EAGER, GROUPED):
        found = no_claim(program(step, 10, marked), program(batched(step, factor), 10, marked))
        if marked is not None:
            assert (
                found.candidate == "step"
                and found.evidence is not None
                and found.evidence.resized > found.evidence.alike
            )
            assert "other launch shapes in B, as with another batch size" in sentences(found)[1]


def test_one_step_more_changes_nothing_per_step_and_is_no_slower_whole() -> None:
    assert ratio(device(program(EAGER, 10), program(EAGER, 11))) == pytest.approx(1.0, abs=0.001)
    for steps in (11, 101):
        found = no_claim(program(LAYER, steps - 1, None), program(LAYER, steps, None), Wanted(same_command=True))
        assert found.evidence is not None and found.evidence.repeated
        assert f"{steps / (steps - 1):.3g} times as often" in sentences(found)[1]


@pytest.mark.parametrize("marked", ["step", None])
def test_another_model_is_not_compared(marked: str | None) -> None:
    found = no_claim(program(EAGER, 10, marked), program(OTHER_MODEL, 10, marked), Wanted(same_command=True))
    assert found.evidence is not None and not found.evidence.established


def test_more_layers_are_another_model() -> None:
    deeper = tuple(replace(k, count=2 * k.count) for k in EAGER)
    found = no_claim(program(EAGER, 10), program(deeper, 10))
    assert found.evidence is not None and found.evidence.repeated


def test_a_trace_that_is_longer_is_no_slower() -> None:
    assert ratio(device(program(EAGER, 10), program(EAGER, 35))) == pytest.approx(1.0, abs=0.001)
    no_claim(program(LAYER, 10, None), program(LAYER, 35, None))


def test_a_range_that_runs_once_is_no_unit_unless_it_is_named() -> None:
    before, after = program(EAGER, 1), program(GROUPED, 1)
    no_claim(before, after)
    found = device(before, after, Wanted("step"))
    assert found.source == "named" and found.units_before == 1


def test_operators_without_launch_shapes_establish_nothing() -> None:
    found = no_claim(program(EAGER, 10, shapes=False), program(GROUPED, 10, shapes=False))
    assert "no launch shapes" in sentences(found)[1]
    assert ratio(device(program(EAGER, 10, shapes=False), program(GROUPED, 10, shapes=False), Wanted("step"))) < 0.7


def test_the_same_command_makes_the_whole_program_a_unit() -> None:
    before, after = program(LAYER, 10, None), program(GROUPED_LAYER, 10, None)
    found = device(before, after, Wanted(same_command=True))
    assert (found.unit, found.source) == ("the whole program", "whole") and ratio(found) < 1


def test_what_the_user_names_is_the_unit() -> None:
    before, after = program(EAGER, 10, None), program(GROUPED, 20, None)
    per_kernel = device(before, after, Wanted("flash_fwd"))
    assert (per_kernel.source, per_kernel.units_before, per_kernel.units_after) == ("named", 9, 19)
    assert ratio(per_kernel) == pytest.approx(1 / 1.5, abs=0.03)
    counted = device(before, after, Wanted(counts=(10, 20)))
    assert counted.source == "counted" and (counted.units_before, counted.units_after) == (10, 20)
    whole = device(before, after, Wanted(whole=True))
    assert whole.source == "named" and whole.after_ns > whole.before_ns
    by_pattern = device(program(EAGER, 10, "a step_#"), program(GROUPED, 10, "b step_#"), Wanted(r"step_\d+"))
    assert by_pattern.units_before == by_pattern.units_after == 10


def test_a_named_unit_of_other_work_is_flagged_before_any_number() -> None:
    comparison = compare(side(program(EAGER, 10)), side(program(batched(EAGER, 2), 10)), Wanted("step"))
    assert [n.id for n in comparison.unlike] == ["unlike-shapes"]
    page = html.render(pages.page(comparison))
    body = page[page.index("<main") :]
    assert 0 < body.index("have other launch shapes") < body.index('id="verdict"')
    more = compare(
        side(program(EAGER, 10)), side(program(tuple(replace(k, count=2 * k.count) for k in EAGER), 10)), Wanted("step")
    )
    assert [n.id for n in more.unlike] == ["unlike-count"]


def test_a_tuned_kernel_is_no_other_size() -> None:
    tuned = tuple(replace(k, blocks=48, ns=10_000) if k.name == "qkv_gemm" else k for k in EAGER)
    assert ratio(device(program(EAGER, 10), program(tuned, 10))) < 1


def test_an_unknown_unit_is_one_line_with_the_nearest_name() -> None:
    with pytest.raises(UsageError) as raised:
        device(program(EAGER, 10), program(EAGER, 10), Wanted("stepp"))
    assert "no range 'stepp'" in raised.value.message and "'step'" in raised.value.hint
    with pytest.raises(UsageError, match="not a regular expression"):
        device(program(EAGER, 10), program(EAGER, 10), Wanted("step("))


def test_a_slow_first_instance_does_not_decide() -> None:
    before = program(ATTENTION, 10)
    shift = 9_000_000
    ops = before.ops.assign(
        start_ns=before.ops["start_ns"] + shift * (before.ops.index > 12),
        end_ns=before.ops["end_ns"] + shift * (before.ops.index > 12),
    )
    found = device(replace(before, ops=ops), before)
    said = sentences(found)
    assert "the median: B takes as long as A" in said[0]
    assert said[1].startswith("A few instances decide the mean")


def test_evidence_is_counted_by_names() -> None:
    whole = program(EAGER, 10).ops
    found = same_work(whole, whole, (10, 10))
    assert found.established and found.resized == found.scaled == 0 and found.alike == found.names == 12
    assert not same_work(whole.iloc[:0], whole, (1, 1)).established
    strangers = tuple(Launch(f"other_{i}", 1_000, 10) for i in range(9))
    one_in_common = same_work(program((*strangers, ATTENTION[1]), 4).ops, program(ATTENTION, 4).ops, (4, 4))
    assert one_in_common.alike == 3 and one_in_common.established, "a kernel of the step and two of the set-up, of nine"
    assert not replace(one_in_common, alike=1).established
    assert not replace(one_in_common, resized=3).established


def of_command(*words: str) -> Manifest:
    machine = Environment("0", "3", "Linux", "cpu", 8)
    return Manifest(1, "program", "gen", "", ("moeprof", "capture", "--", *words), "cuda", machine)


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        (("python", "gen.py", "eager"), ("python", "gen.py", "eager"), True),
        (("python", "gen.py", "eager"), ("python", "gen.py", "grouped_mm"), True),
        (("python", "gen.py", "eager"), ("python", "gen.py", "--fast", "eager"), False),
        (("python", "gen.py", "--batch", "8"), ("python", "gen.py", "--batch", "16"), False),
        (("python", "gen.py", "--steps=10"), ("python", "gen.py", "--steps=11"), False),
        (("python", "a.py", "eager"), ("python", "b.py", "grouped"), False),
    ],
)
def test_command_lines_that_differ_in_one_word(before: tuple[str, ...], after: tuple[str, ...], same: bool) -> None:
    assert programs.same_command(of_command(*before), of_command(*after)) is same
    notes = programs.unlike(of_command(*before), of_command(*after))
    assert [n.evidence["what"] for n in notes] == ([] if before == after else ["command"])


def test_real_windows_without_a_unit_show_the_golden_numbers(traces: Path) -> None:
    """ms by an independent sweep of the events; both last 299 ms, and neither is called faster."""
    before, after = (read(traces / "nsys" / f"mfu_2gpu_{which}.sqlite") for which in ("before", "after"))
    comparison = compare(side(before), side(after))
    golden = (((299.849, 26.031, 253.691, 17.173), (299.251, 59.142, 227.484, 9.989)),
              ((298.662, 31.386, 256.096, 8.229), (299.269, 45.269, 227.609, 23.753)))  # fmt: skip
    for found, sides in zip(comparison.devices, golden, strict=True):
        assert found.unit is None and found.waterfall == () and sentences(found)[0] == NO_CLAIM
        for which, (span, idle, compute, comm) in zip(("before_ns", "after_ns"), sides, strict=True):
            parts = {p.label: getattr(p, which) / 1e6 for p in found.parts}
            assert getattr(found, which) / 1e6 == pytest.approx(span, abs=5e-4)
            assert sum(ms for label, ms in parts.items() if label.startswith("idle")) == pytest.approx(idle, abs=2e-3)
            assert parts["compute"] == pytest.approx(compute, abs=5e-4)
            assert parts["exposed communication"] == pytest.approx(comm, abs=5e-4)


def test_a_layer_of_the_real_windows_is_the_unit_that_is_named(traces: Path) -> None:
    before, after = (read(traces / "nsys" / f"mfu_2gpu_{which}.sqlite") for which in ("before", "after"))
    comparison = compare(side(before), side(after), Wanted("flash_fwd_kernel"))
    assert [(d.units_before, d.units_after) for d in comparison.devices] == [(33, 29), (33, 29)]
    assert all(1.10 < d.after_ns / d.before_ns < 1.17 for d in comparison.devices)
    assert all(re.search(r"B takes \d+ % longer than A", sentences(d)[0]) for d in comparison.devices)


def test_one_program_traced_twice_is_as_fast_as_itself(traces: Path) -> None:
    """Its first iteration waits 14 ms longer in one of the traces: the mean says 0.63 times, the median iteration 0.99."""
    node, whole = (read(traces / "h200" / f"streams_graph_{how}.sqlite") for how in ("node", "whole"))
    found = device(node, whole)
    assert (found.unit, found.units_before, found.units_after) == ("iter", 5, 5)
    assert "the median: B takes 1 % less time than A" in sentences(found)[0] and "0.63" not in " ".join(
        sentences(found)
    )
