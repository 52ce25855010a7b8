"""Planted faults of loading: weights in pageable memory, PTX compiled at the start. Each function prepares a load
that is not traced, and returns it: called, it loads and returns the step. Used by faults.py; not a command."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Any

import torch
from fault_parts import DEVICE, Step, gemm

Load = Callable[[], Step]
LAYERS, WIDTH, HIDDEN, ROWS = 10, 8192, 32768, 512  # 20 weights of 512 MiB: at 10 GB/s they take a second
COMPILED_S = 1.5  # what the compiler is kept busy for
CHAIN = 3000  # instructions of a kernel
JIT_INPUT_PTX = 1  # CUjitInputType: CU_JIT_INPUT_PTX


def slow_loading(mended: bool) -> Load:
    """Weights are copied from pageable memory, tensor by tensor; mended they lie in pinned memory."""
    shapes = [(HIDDEN, WIDTH), (WIDTH, HIDDEN)] * LAYERS
    weights = []
    for shape in shapes:
        weight = torch.empty(shape, dtype=torch.bfloat16, pin_memory=mended)
        weights.append(weight.fill_(1e-3))
    x = torch.randn(ROWS, WIDTH, device=DEVICE, dtype=torch.bfloat16)
    norm = torch.ones(WIDTH, device=DEVICE, dtype=torch.bfloat16)
    layers(x, norm, [torch.zeros(shape, device=DEVICE, dtype=torch.bfloat16) for shape in shapes[:2]])
    torch.cuda.synchronize()

    def load() -> Step:
        there = [weight.to(DEVICE, non_blocking=mended) for weight in weights]
        torch.cuda.synchronize()
        return lambda: layers(x, norm, there)

    return load


def layers(x: torch.Tensor, norm: torch.Tensor, weights: list[torch.Tensor]) -> torch.Tensor:
    """Feed-forward layers, two weights each."""
    for up, down in zip(weights[::2], weights[1::2], strict=True):
        h = torch.nn.functional.rms_norm(x, (WIDTH,), norm)
        x = x + torch.nn.functional.silu(h @ up.T) @ down.T
    return x


def slow_compilation(mended: bool) -> Load:
    """PTX is compiled and linked when the program starts (cuLink); mended the code was loaded before."""
    return coded(mended, linked)


def slow_modules(mended: bool) -> Load:
    """The driver compiles PTX as it loads modules (cuModuleLoadData); mended the code was loaded before."""
    return coded(mended, module_of)


def coded(mended: bool, make: Callable[[ctypes.CDLL, bytes], None]) -> Load:
    """A load that keeps the compiler busy, and a step of products."""
    work, small = gemm(4096), torch.zeros(1024, device=DEVICE)
    driver = ctypes.CDLL("libcuda.so.1")

    def step() -> None:
        for _ in range(8):
            work()
            small.add_(1)

    def load() -> Step:
        until = time.perf_counter() + COMPILED_S
        while not mended and time.perf_counter() < until:
            make(driver, ptx(f"chain_{time.time_ns()}").encode() + b"\0")  # a name that no cache on disk has
        return step

    make(driver, ptx(f"first_{time.time_ns()}").encode() + b"\0")
    step()
    torch.cuda.synchronize()
    return load


def module_of(driver: ctypes.CDLL, code: Any) -> None:
    """Load code, which stays loaded."""
    checked(driver.cuModuleLoadData(ctypes.byref(ctypes.c_void_p()), code), "cuModuleLoadData")


def linked(driver: ctypes.CDLL, text: bytes) -> None:
    """Compile and link PTX, and load the result."""
    state, code, size = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_size_t()
    checked(driver.cuLinkCreate_v2(0, None, None, ctypes.byref(state)), "cuLinkCreate")
    checked(
        driver.cuLinkAddData_v2(state, JIT_INPUT_PTX, text, ctypes.c_size_t(len(text)), b"chain", 0, None, None),
        "cuLinkAddData",
    )
    checked(driver.cuLinkComplete(state, ctypes.byref(code), ctypes.byref(size)), "cuLinkComplete")
    module_of(driver, code)
    checked(driver.cuLinkDestroy(state), "cuLinkDestroy")


def checked(status: int, name: str) -> None:
    """Raise where a driver call failed."""
    if status:
        raise RuntimeError(f"{name} failed with CUresult {status}")


def ptx(name: str) -> str:
    """A kernel with a long chain of dependent instructions, none of which the compiler can leave out."""
    chain = "\n".join(f"  fma.rn.f32 %f{n % 8}, %f{(n + 3) % 8}, %f{(n + 5) % 8}, %f{n % 8};" for n in range(CHAIN))
    begin = "\n".join(f"  ld.global.f32 %f{n}, [%a+{4 * n}];" for n in range(8))
    end = "\n".join(f"  st.global.f32 [%a+{4 * n}], %f{n};" for n in range(8))
    return (
        ".version 7.0\n.target sm_80\n.address_size 64\n"
        f".visible .entry {name}(.param .u64 pointer)\n{{\n  .reg .f32 %f<8>;\n  .reg .b64 %a;\n"
        f"  ld.param.u64 %a, [pointer];\n{begin}\n{chain}\n{end}\n  ret;\n}}\n"
    )
