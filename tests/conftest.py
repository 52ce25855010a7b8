"""What several tests share: where real traces are, and how to skip, with a reason, what this machine cannot do."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser.chromium import CHROMIUM, Browser
from builders.sample_captures import SAMPLE, Ran
from hypothesis import settings
from pages import rendered
from paths import CASES, TRACES

try:
    ctypes.CDLL("libcuda.so.1")
except OSError:  # before anything imports triton: without a GPU its interpreter runs the kernels
    os.environ.setdefault("TRITON_INTERPRET", "1")

from moeprof.cli import main
from moeprof.compare import variants
from moeprof.compare.variants import Comparison
from moeprof.loaded import capture
from moeprof.loaded.capture import Capture

# Each run draws other examples, so many short runs find what a long one finds; a campaign is for a change of the numbers.
settings.register_profile("run", max_examples=60, deadline=None)
settings.register_profile("campaign", max_examples=3000, deadline=None)
settings.load_profile(os.environ.get("MOEPROF_EXAMPLES", "run"))


@pytest.fixture(scope="session")
def traces() -> Path:
    """The folder of real traces; tests that need it skip where it is absent."""
    if not TRACES.is_dir():
        pytest.skip(f"the folder of real traces is absent: {TRACES}")
    return TRACES


@pytest.fixture(scope="session")
def cases() -> Path:
    """The folder of small inputs of known faults; tests that need it skip where it is absent."""
    if not CASES.is_dir():
        pytest.skip(f"the folder of cases is absent: {CASES}")
    return CASES


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Ran]:
    """Run ``moeprof`` in this process, in the test's own folder."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str | Path) -> Ran:
        monkeypatch.setattr("sys.argv", ["moeprof", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main.main()
        said = capsys.readouterr()
        return Ran(int(ended.value.code or 0), said.out, said.err)

    return run


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium; tests that need it skip where there is none."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on PATH")
    with Browser() as found:
        yield found


@pytest.fixture(scope="module")
def sample() -> Capture:
    return capture.load(SAMPLE)


@pytest.fixture(scope="module")
def contrast(sample: Capture) -> Comparison:
    return variants.compare(sample)


@pytest.fixture(scope="module")
def page(sample: Capture, contrast: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(rendered(sample, contrast), encoding="utf-8")
    return path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked ``gpu`` where there is no GPU; there, torch's compiler may warn of its own future."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    reason = _no_gpu() if marked else ""
    for item in marked:
        item.add_marker(pytest.mark.filterwarnings("default"))
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


def _no_gpu() -> str:
    try:
        import torch
    except ModuleNotFoundError:
        return "torch is not installed"
    return "" if torch.cuda.is_available() else "no CUDA GPU here"
