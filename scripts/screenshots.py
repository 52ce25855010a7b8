#!/usr/bin/env python3
"""Pictures of every kind of page, at 1440 and 390 px, light and dark, in headless Chromium. Needs no GPU.

usage: screenshots.py OUT [KIND ...]       whole pages as PNG, the pages, and each on A4 as PDF, in OUT
       screenshots.py --docs OUT [KIND ...]  the first two screens of each page as docs/images/pages/KIND-WIDTH-THEME.webp
                                             and docs/reference/pages.md, too
"""

from __future__ import annotations

import argparse
import base64
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from browser.chromium import CHROMIUM, Browser
from page_kinds import KINDS, Kind
from paths import ROOT

IMAGES = ROOT / "docs" / "images" / "pages"
DOCUMENT = ROOT / "docs" / "reference" / "pages.md"
WIDTHS = {1440: 900, 390: 844}
THEMES = ("light", "dark")
SCREENS = 2
QUALITY = 40
SHRUNK = {1440: 0.6, 390: 0.9}  # pixels of a picture per pixel of the page
INTRODUCTION = """# Pages

moeprof writes one HTML file per question. Each opens from disk, loads nothing and sends nothing. These are the first
two screens of each kind, at 1440 and 390 px, light and dark; a click shows a picture in full. They are made without a GPU from
what ships: `python scripts/screenshots.py --docs OUT` writes the pictures and this list.

"""


def main() -> int:
    """Write the pages and the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("out", type=Path, metavar="OUT", help="Folder of the pages and pictures.")
    parser.add_argument("kinds", nargs="*", choices=[[], *(k.name for k in KINDS)], metavar="KIND", help="Only these.")
    parser.add_argument("--docs", action="store_true", help="Write docs/images/pages and docs/reference/pages.md.")
    args = parser.parse_args()
    if CHROMIUM is None:
        parser.error("there is no Chromium on PATH")
    with Browser() as browser:
        for kind in (k for k in KINDS if not args.kinds or k.name in args.kinds):
            page = _written(kind, args.out)
            for width in WIDTHS:
                for theme in THEMES:
                    _open(browser, page, width, theme)
                    browser.screenshot(args.out / f"{kind.name}-{width}-{theme}.png")
                    if args.docs:
                        _picture(browser, IMAGES / image(kind, width, theme), width)
            _print(browser, page)
            print(f"Wrote {page} and its pictures", flush=True)
    if args.docs:
        DOCUMENT.write_text(document(), encoding="utf-8")
        print(f"Wrote {DOCUMENT}")
    return 0


def image(kind: Kind, width: int, theme: str) -> str:
    """The file name of a picture."""
    return f"{kind.name}-{width}-{theme}.webp"


def document() -> str:
    """The text of docs/reference/pages.md."""
    lines = ["| page | what it answers | 1440 px | 390 px |", "|---|---|---|---|"]
    for kind in KINDS:
        pictures = " | ".join(
            " ".join(f"[![{kind.title}, {width} px, {theme}]({path})]({path})" for theme in THEMES for path in [f"../images/pages/{image(kind, width, theme)}"])
            for width in WIDTHS
        )  # fmt: skip
        lines.append(
            f"| **{kind.title[:1].upper()}{kind.title[1:]}** <br> `{kind.command}` | {kind.answers} | {pictures} |"
        )
    return INTRODUCTION + "\n".join(lines) + "\n"


def _written(kind: Kind, out: Path) -> Path:
    folder = (out / "work" / kind.name).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / f"{kind.name}.html"
    if not page.exists():
        kind.write(page)
    return page


def _open(browser: Browser, page: Path, width: int, theme: str) -> None:
    browser.call("Page.navigate", url="about:blank")
    browser.open(page, width=width, height=WIDTHS[width], dark=theme == "dark")


def _picture(browser: Browser, target: Path, width: int) -> None:
    """The first screens as WebP."""
    target.parent.mkdir(parents=True, exist_ok=True)
    height = min(SCREENS * WIDTHS[width], browser.evaluate("document.documentElement.scrollHeight"))
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": SHRUNK[width]}
    shot = browser.call("Page.captureScreenshot", format="webp", quality=QUALITY, clip=clip, captureBeyondViewport=True)
    target.write_bytes(base64.b64decode(shot["data"]))


def _print(browser: Browser, page: Path) -> None:
    """The page on A4."""
    _open(browser, page, 1440, "light")
    paper = browser.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, printBackground=False)
    (page.parent.parent.parent / f"{page.stem}.pdf").write_bytes(base64.b64decode(paper["data"]))


if __name__ == "__main__":
    sys.exit(main())
