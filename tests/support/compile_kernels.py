"""Compile the router's kernels for a GPU that need not be here, and print what the assembler says of each, as JSON.

usage: compile_kernels.py COMPUTE_CAPABILITY (80, 90, 100, 120); run it with TRITON_INTERPRET=0.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.experimental.gluon import language as gl
from triton.experimental.gluon._runtime import GluonASTSource

from moeprof.workloads.common import stream_kernels as stream
from moeprof.workloads.decode.kernels import attention
from moeprof.workloads.decode.kernels import mla as latent
from moeprof.workloads.decode.kernels import mla_hopper as latent_hopper
from moeprof.workloads.router.kernels import gemm, hopper
from moeprof.workloads.router.kernels import routing as around

LAYOUT = repr(gl.NVMMASharedLayout(128, 16, 2))
ROUTE = {"H": 2048, "E": 128, "EP": 128, "K": 8, "KP": 8, "RENORMALISE": True, "BT": 16, "BK": 128}
TILE = {"BM": 128, "BN": 128, "BK": 64, "GROUP": 8, "PROGRAMS": 132}
HOPPER = {**TILE, "BN": 256, "STAGES": 4, "LAG": 1}
PARTS = {
    "out_ptr": "*bf16",
    **dict.fromkeys(("part_ptr", "stat_ptr"), "*fp32"),
    "count_ptr": "*i32",
    "scale": "fp32",
    "batch_size": "i32",
}
CACHE = {
    **dict.fromkeys(("q_ptr", "k_ptr", "v_ptr"), "*bf16"),
    **dict.fromkeys(("length_ptr", "table_ptr"), "*i32"),
    **PARTS,
    "table_width": "i32",
    "capacity": "i32",
    "launched": "i32",
}
LATENT = {
    **dict.fromkeys(("q_ptr", "c_ptr"), "*bf16"),
    "length_ptr": "*i32",
    **PARTS,
    "capacity": "i32",
    "launched": "i32",
}
DECODE = {"HKV": 8, "G": 4, "GP": 16, "D": 128, "BP": 32, "BN": 64, "CHUNK": 128, "INSIDE": True, "EARLY": False}
# kernel, signature of what is no constant, constants, number of warps
PLAIN: list[tuple[Any, dict[str, str], dict[str, Any], int]] = [
    *(
        (around.route, {**dict.fromkeys(("x_ptr", "router_ptr"), "*bf16"), **dict.fromkeys(("bias_ptr", "weight_ptr"), "*fp32"),
                        **dict.fromkeys(("id_ptr", "rank_ptr", "count_ptr"), "*i32"), "T": "i32", "scale": "fp32"},
         {**ROUTE, "MODE": mode, "GROUPS": 8, "KEPT": 4}, 4)
        for mode in (0, 1, 2)
    ),
    (around.combine, {"y_ptr": "*bf16", "position_ptr": "*i32", "weight_ptr": "*fp32", "out_ptr": "*bf16"}, {"H": 2048, "K": 8, "BH": 2048}, 4),
    (around.prefetch, {"source_ptr": "*bf16", "sink_ptr": "*fp32", "numel": "i32"}, {"BLOCK": 8192}, 4),
    (around.swiglu, {"gate_up_ptr": "*bf16", "weight_ptr": "*fp32", "out_ptr": "*bf16", "rows": "i32"},
     {"INNER": 768, "BR": 4, "BI": 1024, "WEIGHTED": True}, 4),
    (gemm.gate_up, {"x_ptr": "*bf16", "w_desc": "tensordesc<bf16[128, 64]>", "h_ptr": "*bf16",
                    **dict.fromkeys(("token_ptr", "tile_expert_ptr", "tiles_ptr"), "*i32")}, {"H": 2048, "N": 1536, **TILE, "FLATTEN": False}, 8),
    (gemm.down, {"h_desc": "tensordesc<bf16[128, 64]>", "w_desc": "tensordesc<bf16[128, 64]>", "y_ptr": "*bf16",
                 **dict.fromkeys(("tile_expert_ptr", "tiles_ptr"), "*i32")}, {"INNER": 768, "N": 2048, **TILE, "FLATTEN": False}, 8),
    *((attention.decode, CACHE, {**DECODE, "PAGE": page, "SWAP": swap}, 4) for page, swap in ((0, False), (64, True), (16, False))),
    (latent.mla, LATENT, {"UNITS": 1, "G": 16, "GP": 16, "DV": 512, "DR": 64, "BP": 128, "BN": 32, "INSIDE": True}, 8),
    (attention.combine, {"length_ptr": "*i32", "out_ptr": "*bf16", "part_ptr": "*fp32", "stat_ptr": "*fp32", "batch_size": "i32", "launched": "i32"},
     {"UNITS": 2, "G": 64, "GP": 64, "D": 512, "BP": 128, "BN": 64, "SIDE": 2, "HOLDERS": 64, "COLUMNS": 64, "EARLY": False}, 4),
    (stream.read, {"data_ptr": "*fp32", "sums_ptr": "*fp32"}, {"BLOCK": 4096, "TIMES": 4}, 4),
]  # fmt: skip
LATENTS = {"c_desc": f"tensordesc<bf16[64, 512],{LAYOUT}>", "rope_desc": f"tensordesc<bf16[64, 64],{LAYOUT}>", "length_ptr": "*i32", "out_ptr": "*bf16",
           "part_ptr": "*fp32", "stat_ptr": "*fp32", "scale": "fp32", "batch_size": "i32", "capacity": "i32", "launched": "i32"}  # fmt: skip
GLUON = [
    *(
        (latent_hopper.mla, {"q_desc": f"tensordesc<bf16[{rows}, 512],{LAYOUT}>", "q_rope_desc": f"tensordesc<bf16[{rows}, 64],{LAYOUT}>", **LATENTS},
         {"UNITS": units, "GP": rows, "DV": 512, "DR": 64, "BP": 128, "BN": 64, "SWAP": rows < 64, "STAGES": 2}, warps)
        for rows, units, warps in ((16, 1, 4), (16, 1, 8), (32, 1, 8), (64, 2, 8))
    ),
    (hopper.gate_up, {"x_ptr": "*bf16", "w_desc": f"tensordesc<bf16[256, 64],{LAYOUT}>", "h_desc": f"tensordesc<bf16[64, 128],{LAYOUT}>",
                      **dict.fromkeys(("token_ptr", "tile_expert_ptr", "tile_rows_ptr", "tiles_ptr"), "*i32")}, {"KDIM": 2048, "N": 1536, **HOPPER}, 4),
    (hopper.down, {"h_desc": f"tensordesc<bf16[128, 64],{LAYOUT}>", "w_desc": f"tensordesc<bf16[256, 64],{LAYOUT}>",
                   "y_desc": f"tensordesc<bf16[64, 128],{LAYOUT}>", **dict.fromkeys(("tile_expert_ptr", "tile_rows_ptr", "tiles_ptr"), "*i32")},
     {"KDIM": 768, "N": 2048, **HOPPER}, 4),
]  # fmt: skip


def compiled(
    kind: Any, kernel: Any, signature: dict[str, str], constants: dict[str, Any], warps: int, capability: int
) -> dict[str, Any]:
    """Shared memory, registers and spilled bytes of one kernel."""
    places = {(i,): [["tt.divisibility", 16]] for i, t in enumerate(signature.values()) if t.startswith("*")}
    source = kind(kernel, {**signature, **dict.fromkeys(constants, "constexpr")}, constants, places)
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(made.asm["cubin"])
        tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
        said = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    usage = {key.lower(): int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", said)}
    return {"kernel": kernel.__name__, "shared": made.metadata.shared, **usage}


def main() -> int:
    """The command."""
    capability = int(sys.argv[1])
    found = [compiled(ASTSource, *entry, capability) for entry in PLAIN]
    if capability == 90:
        found += [compiled(GluonASTSource, *entry, capability) for entry in GLUON]
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
