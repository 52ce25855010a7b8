"""torch.compile for a few small kernels, without its pool of compiler processes, whose start costs seconds.

A process that will compile may import this module in advance (``Variant.imports``).
"""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # read when the compiler is imported

import torch
import torch._dynamo
import torch._inductor.compile_fx


def compiled(action: Any, **more: Any) -> Any:
    """``action`` compiled for fixed shapes and without a graph break; ``more``: arguments of torch.compile."""
    return torch.compile(action, fullgraph=True, dynamic=False, **more)
