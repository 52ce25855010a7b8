"""What a further host's run leaves there, and what of it travels: logs, and traces that were checked and redacted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moeprof.capture import commands, postprocess
from moeprof.capture.child_processes import Child
from moeprof.capture.plan import Plan
from moeprof.capture.request import Request
from moeprof.errors import CaptureError, MoeprofError, said_of
from moeprof.machine.launcher import Team
from moeprof.storage.capture_folder import sha256
from moeprof.storage.files import of_rank
from moeprof.storage.json import decode
from moeprof.storage.manifest import Rank
from moeprof.worker.clock_offset import Anchor

LOG_BYTES = 200_000  # of each rank's log, its end


@dataclass(frozen=True)
class Desk:
    """The files of a further host while a capture runs, by room; all in ``folder``."""

    setup: Plan
    team: Team
    host: int
    folder: Path

    @property
    def request(self) -> Request:
        """What this host's command line asked for."""
        return self.setup.request

    def log(self, room: str) -> Path:
        """What the head of a run prints, and its profiler."""
        return self.folder / f"{room}.log"

    def rank_log(self, room: str, rank: int) -> Path:
        """What a rank prints."""
        return self.log(room) if rank == self.team.first(self.host) else of_rank(self.log(room), rank)

    def own(self, room: str) -> Path:
        """Beside which each rank writes its trace, without nsys."""
        return self.folder / f"{room}-kineto.json"

    def report(self, room: str) -> Path:
        """The report of nsys."""
        return self.folder / f"{room}.nsys-rep"

    def logs(self, room: str) -> dict[str, str]:
        """The ends of what this host's ranks printed, by the names that their logs have in a capture."""
        own = {rank: self.rank_log(room, rank) for rank in self.team.of_host(self.host)}
        return {
            of_rank(Path(f"{room}.log"), rank).name: log.read_bytes()[-LOG_BYTES:].decode(errors="replace")
            for rank, log in own.items() if log.is_file()
        }  # fmt: skip

    def described(
        self, run: postprocess.Run, room: str, child: Child
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The files that may travel, once ``child`` has ended, and what is missing of them."""
        problems: list[dict[str, Any]] = []
        found = self._of_nsys if child.command.produces is not None else self._of_torch
        with _told(problems):
            status = child.wait()
            return list(found(run, room, child, status, problems)), problems
        return [], problems

    def run(self, variant: str, room: str, asked: dict[str, Any]) -> postprocess.Run:
        """The traced run, as rank 0's capture tells of it."""
        expected = tuple(decode(Rank, one) for one in asked["ranks"])
        anchors = {int(rank): tuple(Anchor(*one) for one in each) for rank, each in asked["anchors"].items()}
        iterations = int(asked["iterations"])
        return postprocess.Run(
            variant,
            iterations,
            self.request.timeout_s,
            lambda tool: self._log_of(room, tool),
            self.team,
            expected,
            anchors,
        )

    def _log_of(self, room: str, tool: str) -> Path:
        return self.log(room) if room.endswith(f"-{tool}") else self.folder / f"{room}-{tool}.log"

    def _of_nsys(
        self, run: postprocess.Run, room: str, child: Child, status: int, problems: list[dict[str, Any]]
    ) -> Iterator[dict[str, Any]]:
        file = f"trace.host{self.host}.sqlite"
        assert self.setup.nsys is not None
        found = postprocess.nsys(
            run, self.setup.nsys, self.report(room), self.folder / file, status, child.last_words()
        )
        yield self._told_of(file, None, found, child.command.argv)
        with _told(problems):
            if found.lacking is not None:
                raise found.lacking

    def _of_torch(
        self, run: postprocess.Run, room: str, child: Child, status: int, problems: list[dict[str, Any]]
    ) -> Iterator[dict[str, Any]]:
        for rank in self.team.of_host(self.host):
            file = f"trace.rank{rank}.json.gz"
            with _told(problems):
                yield self._told_of(file, rank, self._kineto(run, room, rank, file), child.command.argv)

    def _kineto(self, run: postprocess.Run, room: str, rank: int, file: str) -> postprocess.Kept:
        try:
            return postprocess.kineto(run, of_rank(self.own(room), rank), self.folder / file, rank)
        except CaptureError as error:
            raise postprocess.without_trace(rank, self.team, error) from error

    def _told_of(self, file: str, rank: int | None, found: postprocess.Kept, argv: tuple[str, ...]) -> dict[str, Any]:
        """A file as a letter tells of it; its command without this machine's paths."""
        zero = None if found.zero is None else [found.zero.ns, found.zero.uncertainty_ns]
        shown = commands.shown(argv, self.folder)
        return {"file": file, "rank": rank, "zero": zero, "argv": shown, "sha256": sha256(self.folder / file)}


@contextmanager
def _told(problems: list[dict[str, Any]]) -> Iterator[None]:
    """A failure in the block becomes one of ``problems``."""
    try:
        yield
    except MoeprofError as error:
        problems.append(said_of(error))
