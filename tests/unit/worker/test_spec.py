"""A worker's spec and the messages survive the way between two processes, and nothing else is taken for one."""

from __future__ import annotations

import json

import pytest

from moeprof.errors import CaptureError, UsageError, WorkloadError
from moeprof.machine.launcher import Team
from moeprof.worker import messages, spec
from moeprof.worker.clock_offset import Anchor
from moeprof.worker.failures import Failure, RankError
from moeprof.worker.messages import (
    Build,
    Built,
    Done,
    ErrorReply,
    Hello,
    Measured,
    Proven,
    Quit,
    RankProcess,
    Round,
    Timed,
    Versions,
)
from moeprof.worker.spec import Follower, Measurement, Target, WorkerSpec
from moeprof.workload.model import Machine, Proof

TARGET = Target(
    "w.py", "fast", "cuda", {"layers": 3, "ratio": 1.5, "none": None}, Team((2, 1), "host", 29500, "fast-nsys")
)
SPECS = [
    WorkerSpec("serve", TARGET, 60.0, "logs/fast.log"),
    WorkerSpec("measure", TARGET, measurement=Measurement("nsys", "r.json", 8, gate="g")),
    WorkerSpec("follow", TARGET, follower=Follower(77, 900.0, -5, host=1, out="t.json")),
]
PROOF = Proof(True, "whole", 0.25, 1.0)
MESSAGES = [
    Hello(Machine(True, 2, "H200"), Versions("3.11", "2.8"), "GPU-a", None, (RankProcess(0, 10), RankProcess(1, 11, 1, "b", 1))),
    Build({"layers": 3}), Built(6, 7), Round(0.25), Timed((1, 2), (3,)), Quit(), Done(),
    Proven(PROOF, {"share": 0.5, "by rank": (1.0, 2.0)}, (Proven(PROOF), Proven(PROOF))),
    Measured(1, 11, 1, "b", 1, (Anchor(5, 6), Anchor(7, 8))), ErrorReply("no", "do", 5, Failure(2, "died")),
]  # fmt: skip


@pytest.mark.parametrize("given", SPECS, ids=lambda given: given.mode)
def test_a_spec_is_read_as_it_was_written(given: WorkerSpec) -> None:
    assert spec.read(given.argv[given.argv.index("--spec") + 1]) == given
    assert "\n" not in given.text


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("{", UsageError, "--spec is not JSON"),
        ("[]", CaptureError, "spec: expected an object"),
        ('{"mode": "dance"}', CaptureError, r"spec\.mode: expected one of serve"),
        ('{"mode": "serve"}', UsageError, "'serve' lacks target"),
        ('{"mode": "serve", "target": {"workload": "w", "variant": "v"}}', CaptureError, r"spec\.target\.device is missing"),
    ],
)  # fmt: skip
def test_a_wrong_spec_is_refused_by_its_first_wrong_field(text: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        spec.read(text)


def test_a_held_measurement_has_no_parameters_yet() -> None:
    held = SPECS[1].holding("h")
    assert held.target is not None and held.target.params == {} and held.measurement is not None
    assert held.measurement.hold == "h" and held.measurement.gate == "g"
    assert spec.read_params(spec.params_text(TARGET.params)) == TARGET.params


@pytest.mark.parametrize("given", MESSAGES, ids=messages.name)
def test_a_message_is_read_as_it_was_written(given: messages.Request[Done] | messages.Reply) -> None:
    line = messages.line(given)
    read = messages.request if isinstance(given, messages.Request) else messages.reply
    assert read(line) == given and "\n" not in line


@pytest.mark.parametrize("kind", [*messages.REQUESTS, *messages.REPLIES], ids=messages.name_of)
def test_every_message_has_a_name_of_its_own(kind: type) -> None:
    assert messages.BY_NAME[messages.name_of(kind)] is kind


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not JSON", "expected one message"), ("[1]", "expected one message"), ('{"seconds": 1}', "expected one message"),
        ('{"type": "dance"}', "expected one message"), ('{"type": "round"}', "round.seconds is missing"),
        ('{"type": "round", "seconds": "long"}', "round.seconds: expected float"), ('{"type": "done"}', "expected a request"),
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused(text: str, words: str) -> None:
    with pytest.raises(CaptureError, match=words):
        messages.request(text)


def test_a_reply_of_another_kind_is_refused() -> None:
    assert messages.reply_to(Round(1.0), Timed((1,))) == Timed((1,))
    with pytest.raises(CaptureError, match="round was answered by built, expected timed"):
        messages.reply_to(Round(1.0), Built(1, 2))


def test_an_error_keeps_its_kind_its_hint_and_its_rank() -> None:
    failure = Failure(1, "untraced", message="left no trace", hint="read its log", ranks=2)
    failed = ErrorReply.of(RankError(failure)).exception("whole: ")
    assert isinstance(failed, RankError) and failed.failure == failure
    assert (failed.message, failed.hint) == ("whole: rank 1 of 2 left no trace", "read its log")
    for error in (CaptureError("a", "b"), UsageError("a", "b"), WorkloadError("a", "b")):
        again = ErrorReply.of(error).exception()
        assert type(again) is type(error) and (again.message, again.hint) == ("a", "b")
    assert messages.error_in(messages.line(ErrorReply("no"))) == ErrorReply("no")
    assert messages.error_in('{"error": "of another program"}') is None
    assert messages.error_in(json.dumps({"type": "done"})) is None
