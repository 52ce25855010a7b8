"""What moeprof shows, in a minute: `make demo`. Pages go to moeprof-out/.

usage: python scripts/demo.py [--gpu | --cpu]

With a GPU it captures kv_transfer here and opens its page. Without one it shows what is true there too: a page that was
recorded on a GPU, a verdict on this CPU, and the page of a recorded trace.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import textwrap
from pathlib import Path

from moeprof import resources
from moeprof.machine import nvml
from moeprof.storage.capture_folder import OUTPUT

RECORDED, TRACE, WORKLOAD = "kv_transfer", "item_in_loop", "router"
VARIANTS, BUDGET_S = "dense,grouped", "25"
WITH_GPU = """
Next, on this machine:
  moeprof capture -- python train.py   your own program, then: moeprof report
  moeprof list                         the other workloads
"""
WITHOUT_GPU = """
Next, on this machine:
  moeprof report trace.sqlite             the page of your own trace (nsys, or torch.profiler's .json)
  moeprof report before after             what changed between two traces
  moeprof report --sample {recorded} --open   the first page again, in a browser
Next, on a machine with a GPU:
  pip install 'moeprof[gpu]' && moeprof doctor
  moeprof capture -- python train.py && moeprof report
"""


def moeprof(*words: str | Path, answer: bool = False) -> None:
    """Run a command; ``answer``: of what it prints only the first paragraph, and the last line, which names the page."""
    command = ["moeprof", *map(str, words)]
    print(f"$ {' '.join(command)}", flush=True)
    printed = subprocess.PIPE if answer else None
    ran = subprocess.run([sys.executable, "-P", "-m", *command], stdout=printed, text=True, check=True)
    if answer:
        paragraph, _, rest = ran.stdout.strip().partition("\n\n")
        print("\n".join([paragraph, *rest.splitlines()[-1:]]), flush=True)


def title(number: int, text: str) -> None:
    print("\n" + "\n".join(textwrap.wrap(f"{number}. {text}", 96, subsequent_indent="   ")), flush=True)


def with_gpu() -> None:
    """The whole way on this machine's GPU."""
    moeprof("doctor")
    moeprof("capture", RECORDED)
    moeprof("report", "--open")
    print(WITH_GPU)


def without_gpu() -> None:
    """Nothing that would be wrong without a GPU."""
    manifest = json.loads((resources.shipped("samples", RECORDED) / "manifest.json").read_text(encoding="utf-8"))
    gpu, date = manifest["environment"]["gpus_before"][0]["name"], manifest["created"][:10]
    title(1, f"Recorded on one {gpu} on {date}, shown here without a GPU: the KV cache of each layer crosses a link.")
    moeprof("report", "--sample", RECORDED, answer=True)
    title(
        2,
        "Captured now, on this CPU: an MoE layer that computes every expert for every token, and one that computes the chosen ones.",
    )
    folder = OUTPUT / "demo-router"
    moeprof(
        "capture",
        WORKLOAD,
        "--device",
        "cpu",
        "--variants",
        VARIANTS,
        "--tools",
        "none",
        "--budget",
        BUDGET_S,
        "-o",
        folder,
        "-f",
    )
    moeprof("report", folder, answer=True)
    title(
        3,
        f"The page of a trace, recorded on one {gpu}: a loop that reads a number back from the GPU after each product.",
    )
    moeprof("report", "--sample", TRACE, answer=True)
    print(WITHOUT_GPU.format(recorded=RECORDED))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--gpu", action="store_true", help="as on a machine with a GPU")
    where.add_argument("--cpu", action="store_true", help="as on a machine without one")
    chosen = parser.parse_args()
    (with_gpu if chosen.gpu or (nvml.gpus() and not chosen.cpu) else without_gpu)()


if __name__ == "__main__":
    main()
