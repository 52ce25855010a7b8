#!/usr/bin/env python3
"""Weight and time of pages in headless Chromium: bytes, SVG nodes, load and script time, median of five loads in one browser.

usage: measure_pages.py PAGE.html ...
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from browser.chromium import CHROMIUM, Browser

LOADS = 5


def main() -> int:
    """Print a line for each page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("pages", nargs="+", type=Path, metavar="PAGE")
    args = parser.parse_args()
    if CHROMIUM is None:
        parser.error("there is no Chromium on PATH")
    print(f"{'page':<28} {'bytes':>9} {'svg nodes':>9} {'load, ms':>9} {'script, ms':>10}")
    with Browser() as browser:
        browser.call("Performance.enable")
        for page in args.pages:
            loads, scripts, nodes = [], [], 0
            for _ in range(LOADS):
                loaded, script, nodes = _load(browser, page)
                loads.append(loaded)
                scripts.append(script)
            print(
                f"{page.name:<28} {page.stat().st_size:>9} {nodes:>9} {median(loads):>9.0f} {median(scripts):>10.0f}",
                flush=True,
            )
    return 0


def _load(browser: Browser, page: Path) -> tuple[float, float, int]:
    """Time to the load event and time in scripts until everything is drawn, in ms, and the number of SVG nodes."""
    browser.call("Page.navigate", url="about:blank")
    browser.open(page, width=1440)
    loaded = browser.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    values = {m["name"]: m["value"] for m in browser.call("Performance.getMetrics")["metrics"]}
    return loaded, 1e3 * values["ScriptDuration"], browser.evaluate("document.querySelectorAll('svg *').length")


if __name__ == "__main__":
    sys.exit(main())
