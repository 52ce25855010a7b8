#!/usr/bin/env python3
"""Fetch the partial builds of plotly.js with npm into reports/vendor; a file whose SHA-256 is not the pinned one is refused.

usage: fetch_plotly.py [--check]

--check   fetch nothing: compare the shipped files with the pins
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from moeprof.report.plotly_js import BUNDLES, VERSION, Bundle

LICENSE = "LICENSE-plotly"


def main() -> int:
    """Fetch or check every build."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--check", action="store_true", help="compare the shipped files with the pins")
    args = parser.parse_args()
    npm = shutil.which("npm")
    if not args.check and npm is None:
        parser.error("npm is not on PATH; install Node.js")
    for bundle in BUNDLES:
        script = bundle.path.read_bytes() if args.check else _fetched(str(npm), bundle)
        digest = hashlib.sha256(script).hexdigest()
        if digest != bundle.sha256:
            print(f"error: {bundle.file} has SHA-256 {digest}, pinned is {bundle.sha256}", file=sys.stderr)
            return 1
        if not args.check:
            bundle.path.write_bytes(script)
        print(f"{bundle.file}: {len(script):,} bytes, plotly.js {VERSION}, as pinned")
    return 0


def _fetched(npm: str, bundle: Bundle) -> bytes:
    """The script in the package's tarball; its licence goes beside the shipped file."""
    with tempfile.TemporaryDirectory() as place:
        subprocess.run([npm, "pack", f"{bundle.package}@{VERSION}"], cwd=place, check=True, capture_output=True)
        (archive,) = Path(place).glob("*.tgz")
        with tarfile.open(archive) as packed:
            script, license = (packed.extractfile(f"package/{name}") for name in (bundle.file, "LICENSE"))
            assert script is not None and license is not None
            (bundle.path.parent / LICENSE).write_bytes(license.read())
            return script.read()


if __name__ == "__main__":
    sys.exit(main())
