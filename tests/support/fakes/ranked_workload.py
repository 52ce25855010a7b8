"""A workload with ranks: the sum over all ranks of a vector, at once or in chunks. RANKED plants a fault in one rank:
``build:1`` raises in build, ``exit:1:3`` ends the process in its third iteration or later, ``raise``, ``hang`` (sleeps), ``stop``
(SIGSTOP) and ``kill`` (SIGKILL) likewise, ``traced:1`` ends it once ranges are pushed, ``untraced:1`` leaves no trace
of torch.profiler, ``wrong:1`` gives a wrong result. RANKED_IN names the variant, else all."""

import os
import signal
import sys
import time

from moeprof import Proof, Step, Variant, Workload
from moeprof.worker import nvtx


def planted(kind, rank, count=None):
    what, _, where = os.environ.get("RANKED", "").partition(":")
    at, _, after = where.partition(":")
    return what == kind and int(at) == rank and (count is None or count >= int(after or 0))


def fault(rank, count):
    if planted("raise", rank, count):
        raise RuntimeError("planted in a round")
    if planted("exit", rank, count):
        print("about to leave", file=sys.stderr, flush=True)
        os._exit(3)
    if planted("hang", rank, count):
        print("about to hang", file=sys.stderr, flush=True)
        time.sleep(600)
    for kind, number in (("stop", signal.SIGSTOP), ("kill", signal.SIGKILL)):
        if planted(kind, rank, count):
            os.kill(os.getpid(), number)


def build(name, chunks):
    def made(params, device):
        device = "cpu" if os.environ.get("FAKE_GPUS") else device  # a GPU that is not there
        import torch
        from torch import distributed

        rank, ranks = distributed.get_rank(), distributed.get_world_size()
        here = os.environ.get("RANKED_IN", name) == name
        if here and planted("build", rank):
            raise RuntimeError("planted in build")
        if here and planted("untraced", rank):
            torch.profiler.profile.export_chrome_trace = lambda self, path: None
        source = torch.arange(params["size"], dtype=torch.float32, device=device) * (rank + 1)
        out, count = torch.empty_like(source), [0]

        def run():
            count[0] += 1
            if here:
                fault(rank, count[0])
            if here and planted("traced", rank) and nvtx._state["factory"] is not nvtx._nothing:
                os._exit(7)
            time.sleep(
                0.005
            )  # few iterations a round: collectives of a busy machine without GPUs are slow now and then
            out.copy_(source)
            for part in out.chunk(chunks):
                distributed.all_reduce(part)
            if here and planted("wrong", rank):
                out[0] += 1

        return Step(run, lambda: out, lambda: out.fill_(float("nan")), params["size"] * ranks, 8 * params["size"],
                    lambda: {"rank share": float(rank)})  # fmt: skip

    return made


def prove(params, device, step):
    import torch
    from torch import distributed

    device = step.output().device
    ranks = distributed.get_world_size()
    expected = torch.arange(params["size"], dtype=torch.float64, device=device) * (ranks * (ranks + 1) // 2)
    step.poison()
    step.run()
    error = float((step.output().double() - expected).norm() / expected.norm())
    right = error <= 1e-6
    return Proof(right, "all elements", error, 1e-6, "" if right else f"off by {error:.1e}")


WORKLOAD = Workload(
    name="ranked",
    summary="a sum over ranks",
    variants=(
        Variant("whole", "one all_reduce", build("whole", 1)),
        Variant("chunked", "four", build("chunked", 4), lambda m: None if m.ranks > 1 else "needs 2 ranks"),
    ),
    baseline="whole",
    optimized="chunked",
    presets={"default": {"size": 4096, "seed": 1}, "tiny": {"size": 4096, "seed": 1}},
    prove=prove,
    ceilings=lambda params, device: {"link_gb_per_s": 50.0},
    ranks=True,
)
