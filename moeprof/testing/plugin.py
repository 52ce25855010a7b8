"""What pytest loads at its start: options, a marker, the fixture ``moeprof``, the report. Nothing heavy is imported here."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from moeprof.testing.fixture import Moeprof
    from moeprof.testing.log import Log

MARKER = "moeprof_gpu"
LOG: pytest.StashKey[Log] = pytest.StashKey()
CARRIED = "moeprof"  # the attribute of a test's report that holds its record as JSON; it travels between processes


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the run."""
    group = parser.getgroup("moeprof", "GPU work of tests (moeprof)")
    group.addoption("--moeprof-report", metavar="FILE.html", help="Write a page of all captured tests.")
    group.addoption("--moeprof-json", metavar="FILE", help="Write all captured tests as JSON.")
    for name, what in (("unknown", "a value is not known on this machine"), ("unclear", "an interval cannot tell")):
        group.addoption(
            f"--moeprof-{name}", choices=("fail", "skip"), default="fail", help=f"Where {what}: fail (default) or skip."
        )


def pytest_configure(config: pytest.Config) -> None:
    """The marker; the report in the process that hears of all tests."""
    config.addinivalue_line(
        "markers", f"{MARKER}: needs a CUDA GPU with torch; skipped, with the reason, where there is none"
    )
    page, data = (config.getoption(name) for name in ("--moeprof-report", "--moeprof-json"))
    if (page or data) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Reporter(_file(page), _file(data)), "moeprof-reporter")


def _file(name: str | None) -> Path | None:
    path = Path(name) if name else None
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise pytest.UsageError(f"moeprof cannot write {name}: it is a folder, or lies in none")
    return path


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none."""
    if item.get_closest_marker(MARKER) is not None:
        from moeprof.testing.profiling import no_gpu

        if reason := no_gpu():
            item.add_marker(pytest.mark.skip(reason=f"{MARKER}: {reason}"))


@pytest.fixture
def moeprof(request: pytest.FixtureRequest) -> Iterator[Moeprof]:
    """Capture the GPU work of a part of the test and assert on it: docs/howto/pytest.md of moeprof."""
    from moeprof.testing.fixture import Moeprof
    from moeprof.testing.log import Log

    config = request.config
    log = request.node.stash[LOG] = Log(config.getoption("--moeprof-unknown"), config.getoption("--moeprof-unclear"))
    with tempfile.TemporaryDirectory(prefix="moeprof-") as folder:
        yield Moeprof(log, Path(folder))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Generator[None, Any, None]:
    """Give the report of a test what it captured; an error of the plugin's own ends where the test called it."""
    if call.excinfo is not None and type(call.excinfo.value).__name__ == "ProbeError":
        _end_in_the_test(call.excinfo.value)
    outcome = yield
    report, log = outcome.get_result(), item.stash.get(LOG, None)
    ended = report.when == "call" or (report.when == "setup" and not report.passed)
    if log is None or not ended:
        return
    found = log.case(item.nodeid, report.outcome, os.environ.get("PYTEST_XDIST_WORKER", ""))
    if found is not None:
        from moeprof.storage.json import dumps

        setattr(report, CARRIED, dumps(found))


def _end_in_the_test(error: BaseException) -> None:
    """Cut the traceback before the first frame of this package, and before those of the with statement."""
    here, entry, last = str(Path(__file__).parent), error.__traceback__, None
    while entry is not None and not entry.tb_frame.f_code.co_filename.startswith(here):
        if Path(entry.tb_frame.f_code.co_filename).name != "contextlib.py":
            last = entry
        entry = entry.tb_next
    if entry is not None and last is not None:
        last.tb_next = None


class Reporter:
    """Collects the records of all tests, of every process, and writes page and JSON at the end."""

    def __init__(self, page: Path | None, data: Path | None) -> None:
        self._page, self._data = page, data
        self._records: list[str] = []
        self._said: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of a test is over, in this process or in a worker."""
        record = getattr(report, CARRIED, None)
        if record is not None:
            self._records.append(record)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write; a page that cannot be written fails the run."""
        from moeprof.errors import MoeprofError
        from moeprof.testing.reports import write

        try:
            self._said = [f"Wrote {path}" for path in write(self._records, self._page, self._data)]
        except (OSError, MoeprofError) as error:
            self._said = [f"moeprof could not write its report: {error}"]
            session.exitstatus = session.exitstatus or pytest.ExitCode.INTERNAL_ERROR

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say what was written."""
        for line in self._said:
            terminalreporter.write_line(line)
