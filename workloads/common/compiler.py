"""torch.compile for a few small kernels, without the pool of compilers that it starts for many and that costs seconds.

A process that will compile may import this ahead (``Variant.imports``).
"""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # read when the compiler is imported

import torch
import torch._dynamo
import torch._inductor.compile_fx


def compiled(action: Any, **more: Any) -> Any:
    """``action`` compiled for fixed shapes and without a graph break, or an error; ``more`` as torch.compile takes it."""
    return torch.compile(action, fullgraph=True, dynamic=False, **more)
