"""Three variants that only sleep: two right ones and one whose proof fails. No tensor library."""

import os
import time

from moeprof import Pipeline, Proof, Step, Variant, Workload


def build(seconds):
    def made(params, device):
        if os.environ.get("FAKE_WORKLOAD") == "crash":
            raise RuntimeError("the workload broke")
        return Step(lambda: time.sleep(seconds), lambda: seconds, lambda: None, 1000, 2000)

    return made


def prove(params, device, step):
    right = step.output() < 0.003
    return Proof(right, "1 of 1 parts", 0.0, 0.0, "" if right else "part 0 differs from the reference")


WORKLOAD = Workload(
    name="sleeper",
    summary="sleeps",
    variants=(
        Variant("slow", "sleeps longer", build(0.002)),
        Variant("wrong", "is wrong", build(0.004)),
        Variant("never", "cannot run", build(0), lambda machine: "needs a quantum computer"),
        Variant("fast", "sleeps less", build(0.001)),
    ),
    baseline="slow",
    optimized="fast",
    presets={"default": {"stages": 4, "seed": 3}, "tiny": {"stages": 2, "seed": 3}},
    prove=prove,
    limit=Pipeline("stages", "link_gb_per_s"),
    ceilings=lambda params, device: {"link_gb_per_s": 50.0},
    shows="nothing",
)
