"""Letters between captures of several hosts: signed, taken once, files in pieces, clocks, signs of life."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hosting import free_port

from moeprof.errors import CaptureError, ToolError
from moeprof.worker.host_rendezvous import Meeting

pytest.importorskip("torch.distributed", reason="torch is not installed")


def posts(token: str = "t") -> tuple[Any, Callable[[str], Any]]:
    from moeprof.worker.host_link import Post

    where = Meeting("127.0.0.1", free_port(), token)
    kept = Post(where, True, 5)
    return kept, lambda other: Post(replace(where, token=other), False, 5)


def test_letters_are_signed_and_taken_once() -> None:
    kept, other = posts()
    mine, stranger = other("t"), other("another")
    mine.queue("q", {"n": 1})
    mine.queue("q", {"n": 2})
    assert [kept.take(f"q/{n}", 1) for n in (1, 2)] == [{"n": 1}, {"n": 2}]
    assert kept.take("q/1", 0.05) is None
    stranger.send("k", {"do": "quit"})
    with pytest.raises(CaptureError, match="not signed"):
        kept.take("k", 1)
    mine.send("a", {"x": 1})
    kept.store.set("b", kept.store.get("a"))
    with pytest.raises(CaptureError, match="not signed"):
        kept.take("b", 1)  # a letter of another key is no letter of this one


def test_a_file_travels_whole_and_no_more_of_it_at_once_than_fits(tmp_path: Path) -> None:
    from moeprof.worker import host_link

    kept, other = posts()
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(bytes(range(256)) * (host_link.PIECE_BYTES // 256) * 6 + b"end")
    sums: list[str] = []
    sender, keys = other("t"), other("t")
    thread = threading.Thread(target=lambda: sums.append(sender.send_file("f", source, 20)))
    thread.start()
    time.sleep(0.5)
    assert sum(keys.has(f"f/{n}") for n in range(10)) <= host_link.AHEAD + 1, "the store's memory is bounded"
    sums.append(kept.receive_file("f", target, 20))
    thread.join()
    assert target.read_bytes() == source.read_bytes() and len(set(sums)) == 1
    with pytest.raises(CaptureError, match="did not come whole within 0 s"):
        kept.receive_file("nothing", target, 0.1)


def test_a_clock_is_measured_over_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, other = posts()
    far, ahead, true = other("t"), 7_000_000_000, time.time_ns
    main = threading.get_ident()
    monkeypatch.setattr(time, "time_ns", lambda: true() + (ahead if threading.get_ident() == main else 0))
    answering = threading.Thread(target=kept.answer_clock, args=("c", 10))
    answering.start()
    found = far.clock("c")
    answering.join()
    assert found.least <= ahead <= found.most and found.uncertainty_ns < 100_000_000


def slow_way(port: int, seconds: float) -> int:
    """The port of a way to ``port`` on which what is sent there takes longer; what comes back does not."""
    server = socket.create_server(("127.0.0.1", 0))

    def take(source: socket.socket, due: queue.Queue[tuple[float, bytes]], wait: float) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                due.put((time.monotonic() + wait, data))
        due.put((0.0, b""))

    def pass_on(due: queue.Queue[tuple[float, bytes]], target: socket.socket) -> None:
        """Each at its own time: a message that follows at once does not wait for the one before it a second time."""
        when, data = due.get()
        with suppress(OSError):
            while data:
                time.sleep(max(when - time.monotonic(), 0))
                target.sendall(data)
                when, data = due.get()
        target.close()

    def accept() -> None:
        for _ in range(2):  # the store's client looks whether the server answers before it stays
            near, _ = server.accept()
            far = socket.create_connection(("127.0.0.1", port))
            for source, target, wait in ((near, far, seconds), (far, near, 0.0)):
                # without it a small message may wait 40 ms until the last one was acknowledged
                target.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                due: queue.Queue[tuple[float, bytes]] = queue.Queue()
                threading.Thread(target=take, args=(source, due, wait), daemon=True).start()
                threading.Thread(target=pass_on, args=(due, target), daemon=True).start()
        server.close()

    threading.Thread(target=accept, daemon=True).start()
    return int(server.getsockname()[1])


def test_a_clock_over_a_way_that_is_slow_one_way(monkeypatch: pytest.MonkeyPatch) -> None:
    from moeprof.worker import host_link

    monkeypatch.setattr(host_link, "EXCHANGES", 8)
    kept, _ = posts()
    far = host_link.Post(Meeting("127.0.0.1", slow_way(kept.meeting.port, 0.004), "t"), False, 10)
    answering = threading.Thread(target=kept.answer_clock, args=("c", 10))
    answering.start()
    found = far.clock("c")
    answering.join()
    assert found.least <= 0 <= found.most, "one clock: the truth is 0"
    assert -found.uncertainty_ns <= found.ns < -1_500_000, (
        "the middle is off by half the difference of the ways, within the doubt"
    )


def test_a_host_that_falls_silent_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from moeprof.capture import host_heartbeat

    monkeypatch.setattr(host_heartbeat, "BEAT_S", 0.05)
    monkeypatch.setattr(host_heartbeat, "SILENT_S", 2.0)
    kept, other = posts()
    lost: list[tuple[int, str]] = []
    watch = host_heartbeat.Beats(kept, 0, [1, 2, 3], lambda host, why: lost.append((host, why)))
    alive, dying = (host_heartbeat.Beats(other("t"), host, [0], lambda host, why: None) for host in (1, 2))
    other("t").store.set("host/3/gone", "")
    until = time.monotonic() + 20
    while not lost and time.monotonic() < until:
        time.sleep(0.02)
    assert lost == [(3, "the capture of its host ended")]
    dying.close()
    while len(lost) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    assert lost[1:] == [(2, "nothing was heard of its host for 2 s")]
    for one in (watch, alive):
        one.close()


def test_nobody_at_the_port_is_one_clear_line() -> None:
    from moeprof.worker.host_link import Post

    with pytest.raises(ToolError, match=r"did not answer at 127.0.0.1:\d+ within 1 s"):
        Post(Meeting("127.0.0.1", free_port(), ""), False, 1)
