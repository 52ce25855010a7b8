"""Parts of a capture of several hosts become one, and what is no part of it does not get in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders.sample_captures import Ran

from moeprof.capture import join as joining
from moeprof.errors import CaptureError
from moeprof.notes import note
from moeprof.storage import manifest as manifests
from moeprof.storage.capture_folder import Store
from moeprof.storage.json import dumps
from moeprof.storage.manifest import Environment, Manifest, Part, Rank, Round, VariantRecord

ID = "0123456789abcdef"


def part(folder: Path, host: int, **changes: Any) -> Path:
    """A host's part of a capture of two hosts with a rank each; host 1's clock is 5 us ahead."""
    ranks = [Rank(0, pid=1), Rank(1, 1, pid=2)]
    far = replace(ranks[1], clock_offset_ns=5000, clock_uncertainty_ns=7)
    here = tuple(ranks) if host == 0 else (replace(ranks[0], clock_offset_ns=9, reason="not known here"), far)
    record = VariantRecord("v", "", "ok", rounds=(Round(0, 0, (1, 2, 3)),) if host == 0 else (), ranks=here)
    environment = Environment("0", "3", "L", "c", 16)
    base = Manifest(1, "workload", "w", "2026", (), "cpu", environment, ranks=2, variants=(record,))
    store = Store(folder, replace(base, capture_id=ID, host_count=2, hosts=(host,)))
    store.open()
    file = f"v/trace{f'.rank{host}' if host else ''}.json.gz"
    partial = store.partial(file)
    partial.write_bytes(f"trace {host}".encode())
    store.keep("v", partial, Part("trace", "torch", file, (), 3, "", 0, host, host, zero_utc_ns=10**18))
    store.log("v", f"clean{f'.rank{host}' if host else ''}").write_text(f"log {host}")
    store.drop_scratch()
    store.update(**changes)
    return store.close()


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    return [part(tmp_path / "cap", 0), part(tmp_path / "cap.host1", 1)]


def test_the_whole_has_the_parts_of_every_host(parts: list[Path], tmp_path: Path) -> None:
    whole = joining.join([parts[1], parts[0]], tmp_path / "all")
    assert whole == manifests.read(tmp_path / "all")
    (record,) = whole.variants
    assert whole.complete and (whole.hosts, whole.host_count, whole.capture_id) == ((0, 1), 2, ID)
    assert [(p.file, p.host) for p in record.parts] == [("v/trace.json.gz", 0), ("v/trace.rank1.json.gz", 1)]
    assert len(record.rounds) == 1 and record.ranks[1].clock_offset_ns == 5000
    assert record.ranks[1].clock_uncertainty_ns == 7 and record.ranks[0].clock_offset_ns == 0
    assert record.ranks[0].reason == "", "a rank's own host knows of it"
    assert set(tree(tmp_path / "all")) == {
        "manifest.json",
        "v/trace.json.gz",
        "v/trace.rank1.json.gz",
        "logs/v-clean.log",
        "logs/v-clean.rank1.log",
    }


def test_by_command_and_in_place_the_same_comes_out(
    parts: list[Path], tmp_path: Path, command: Callable[..., Ran]
) -> None:
    ran = command("join", *map(str, parts), "-o", "all")
    assert ran.code == 0 and ran.out == "Wrote all\n" and ran.err == "Next: moeprof report all\n"
    assert command("join", *map(str, parts), "-o", "all").code == 2, "there is one already"
    joining.join(parts, parts[0])  # what rank 0's capture does where it sees the other folders
    assert tree(tmp_path / "all") == tree(parts[0])


def test_a_failure_on_another_host_and_an_unknown_clock_are_in_the_whole(tmp_path: Path) -> None:
    record = manifests.read(part(tmp_path / "x", 1)).variants[0]
    lost = replace(
        record,
        ranks=(replace(record.ranks[1], status="failed", reason="gone", clock_offset_ns=None),),
    )
    parts = [
        part(tmp_path / "cap", 0, notes=(note("host-missing", hosts="1"),)),
        part(
            tmp_path / "cap.host1",
            1,
            variants=(lost,),
            notes=(note("no-trace", variant="v", why="gone"), note("busy-gpu", processes="x")),
        ),
    ]
    whole = joining.join(parts, tmp_path / "all")
    rank = whole.variants[0].ranks[1]
    assert (rank.status, rank.reason, rank.clock_offset_ns) == ("failed", "gone", None)
    assert [(n.id, n.evidence) for n in whole.notes] == [
        ("no-trace", {"variant": "v", "why": "gone"}),
        ("no-clock", {"variant": "v", "hosts": "1"}),
    ]


def test_variants_of_a_workload_are_contrasted_next(tmp_path: Path, command: Callable[..., Ran]) -> None:
    contrast = {"baseline": "v", "optimized": "v"}
    for host, name in enumerate(("cap", "cap.host1")):
        part(tmp_path / name, host, **contrast)
    assert command("join", "cap", "cap.host1", "-o", "a b").err == "Next: moeprof report 'a b'\n"


def test_what_is_not_complete_is_not_made_so(parts: list[Path], tmp_path: Path) -> None:
    unfinished = replace(manifests.read(parts[1]), complete=False)
    (parts[1] / "manifest.json").write_text(dumps(unfinished))
    assert not joining.join(parts, tmp_path / "all").complete


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ([0], "the part of host 1 is missing"),
        ([1], "the part of host 0 is missing"),
        ([0, 1, 1], "both are the part of host 1"),
        ([0, 2], "are parts of different captures"),
        ([0, 3], "is no part of a capture of several hosts"),
        ([0, 4], "is not a capture"),
    ],
)
def test_what_is_not_all_parts_of_one_capture_is_refused(
    parts: list[Path], tmp_path: Path, chosen: list[int], said: str, command: Callable[..., Ran]
) -> None:
    folders = [
        *parts,
        part(tmp_path / "another", 1, capture_id="f" * 16),
        part(tmp_path / "single", 1, capture_id=""),
        tmp_path / "nothing",
    ]
    ran = command("join", *(str(folders[number]) for number in chosen), "-o", "all")
    assert ran.code == 1 and said in ran.err and "Traceback" not in ran.err
    assert not list(tmp_path.glob("all*"))


def renamed(folder: Path, file: str) -> None:
    found = manifests.read(folder)
    record = found.variants[0]
    parts = tuple(replace(p, file=file) for p in record.parts)
    (folder / "manifest.json").write_text(dumps(replace(found, variants=(replace(record, parts=parts),))))


def changed(folder: Path) -> None:
    (folder / "v" / "trace.rank1.json.gz").write_text("another")


def linked(folder: Path) -> None:
    file = folder / "v" / "trace.rank1.json.gz"
    file.rename(folder.parent / "outside")
    file.symlink_to(folder.parent / "outside")


def linked_folder(folder: Path) -> None:
    (folder / "v").rename(folder.parent / "outside")
    (folder / "v").symlink_to(folder.parent / "outside")


def linked_log(folder: Path) -> None:
    (folder.parent / "secret").write_text("secret")
    (folder / "logs" / "v-x.log").symlink_to(folder.parent / "secret")


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (changed, "its SHA-256 differs"),
        (linked, "names a file outside of it"),
        (linked_folder, "names a file outside of it"),
        (linked_log, "names a file outside of it"),
        (lambda folder: renamed(folder, "../cap/v/trace.json.gz"), "names a file outside of it"),
        (lambda folder: renamed(folder, "/etc/passwd"), "names a file outside of it"),
        (lambda folder: (folder / "v" / "trace.rank1.json.gz").unlink(), "trace.rank1.json.gz is missing"),
    ],
)
def test_a_part_that_is_not_what_it_says_is_refused(
    parts: list[Path], tmp_path: Path, plant: Callable[[Path], None], said: str
) -> None:
    before = tree(parts[0])
    plant(parts[1])
    with pytest.raises(CaptureError, match=said):
        joining.join(parts, parts[0])
    assert tree(parts[0]) == before and not list(tmp_path.glob("*.partial")), "nothing was written"
