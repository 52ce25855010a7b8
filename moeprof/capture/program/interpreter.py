"""The Python of a program, asked without importing torch: its version, its packages, torch's CUDA, whether moeprof is there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from moeprof.capture.program.name import python_command

TIMEOUT_S = 20
# prints one JSON object; the version of CUDA is read from torch's own version file
PROBE = r"""
import importlib.metadata as m, importlib.util as u, json, os, platform, re, sys
names = json.loads(sys.argv[1])
found = {}
for name in names:
    try: found[name] = m.version(name)
    except Exception: pass
cuda = None
try:
    spec = u.find_spec("torch")
    text = open(os.path.join(os.path.dirname(spec.origin), "version.py")).read()
    match = re.search(r"^cuda\s*(?::[^=\n]*)?=\s*['\"]([^'\"]+)['\"]", text, re.M)
    cuda = match and match.group(1)
except Exception: pass
def there(name):
    try: return u.find_spec(name) is not None
    except Exception: return False
print(json.dumps({"python": platform.python_version(), "executable": sys.executable, "packages": found, "cuda": cuda,
                  "torch": there("torch"), "moeprof": there("moeprof")}))
"""


@dataclass(frozen=True)
class Interpreter:
    """What a program's Python reported. ``cuda`` is the version that torch was built for."""

    python: str
    executable: str
    packages: dict[str, str] = field(default_factory=dict)
    cuda: str | None = None
    torch: bool = False
    moeprof: bool = False


def of_program(words: tuple[str, ...], packages: tuple[str, ...]) -> Interpreter | None:
    """The Python that runs these words: of ``python``, of a .py file, or of a script's first line (torchrun, vllm); None if there
    is none or it does not answer."""
    path = _path(words)
    if path is None:
        return None
    try:
        child = subprocess.run(
            (path, "-c", PROBE, json.dumps(packages)), capture_output=True, text=True, timeout=TIMEOUT_S, check=True
        )
        return Interpreter(**json.loads(child.stdout.splitlines()[-1]))
    except (OSError, subprocess.SubprocessError, ValueError, TypeError, IndexError):
        return None


def _path(words: tuple[str, ...]) -> str | None:
    for at, word in enumerate(words):
        if at and word.startswith("-"):
            continue
        python = python_command(words[at:])
        if python is not None:
            return shutil.which(python.interpreter) if python.interpreter else sys.executable
        shebang = _shebang(word) if at == 0 else None
        if shebang is not None:
            return shebang
    return None


def _shebang(word: str) -> str | None:
    """The Python of a script's first line."""
    path = shutil.which(word)
    if path is None:
        return None
    try:
        with Path(path).open("rb") as file:
            first = file.readline(256)
    except OSError:
        return None
    line = first.decode(errors="replace").strip()
    if not line.startswith("#!") or "python" not in line:
        return None
    parts = line[2:].split()
    return shutil.which(parts[-1]) if Path(parts[0]).name == "env" else parts[0]
