"""Whether llama.cpp's kernels for Intel's AMX work here: a product of ones, tried in a process that may die of it.

What GCC 12 makes of them loads tiles that were never described, so on every CPU that has AMX the first decode ends
in SIGSEGV (llama.cpp's pull request 26954). Knows no models.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
from ctypes import CDLL, POINTER, c_char_p, c_float, c_int, c_int64, c_size_t, c_void_p
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

FLAG = "AMX_INT8 = 1"  # in llama.cpp's system info
LAYOUT = b"AMX"
COLUMNS, ROWS = 256, 64
THREADS = 1
F32, Q4_0 = 0, 2  # ggml_type
BLOCK = 32  # values of Q4_0 that share a scale
ONES = b"\x00\x3c" + b"\x99" * (BLOCK // 2)  # the scale 1.0 in half precision, values in four bits, 8 added
MEMORY = 1 << 22
STDERR = 2
SECONDS = 5  # for what takes milliseconds


class _Parameters(ctypes.Structure):
    """ggml_init_params."""

    _fields_ = (("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", ctypes.c_bool))


BASE: dict[str, tuple[Any, ...]] = {  # result, then arguments
    "ggml_init": (c_void_p, _Parameters),
    "ggml_new_tensor_2d": (c_void_p, c_void_p, c_int, c_int64, c_int64),
    "ggml_mul_mat": (c_void_p, c_void_p, c_void_p, c_void_p),
    "ggml_new_graph": (c_void_p, c_void_p),
    "ggml_build_forward_expand": (None, c_void_p, c_void_p),
    "ggml_get_data_f32": (POINTER(c_float), c_void_p),
    "ggml_backend_reg_dev_get": (c_void_p, c_void_p, c_size_t),
    "ggml_backend_reg_get_proc_address": (c_void_p, c_void_p, c_char_p),
    "ggml_backend_buft_name": (c_char_p, c_void_p),
    "ggml_backend_alloc_ctx_tensors_from_buft": (c_void_p, c_void_p, c_void_p),
    "ggml_backend_tensor_set": (None, c_void_p, c_char_p, c_size_t, c_size_t),
}
CPU: dict[str, tuple[Any, ...]] = {
    "ggml_backend_cpu_reg": (c_void_p,),
    "ggml_set_f32": (c_void_p, c_void_p, c_float),
    "ggml_graph_compute_with_ctx": (c_int, c_void_p, c_void_p, c_int),
}


def survives(trial: Callable[[], bool]) -> bool:
    """Whether a trial succeeds in a child; taken for granted where a process can't fork. Comes before any decode."""
    if not hasattr(os, "fork"):
        return True
    import resource

    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # its death is nothing to look into
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(SECONDS)  # OpenMP waits for ever in a fork of a process that has used it
        faulthandler.disable()
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDERR)
        worked = False
        try:
            worked = trial()
        finally:
            os._exit(0 if worked else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def multiplies(base: CDLL, cpu: CDLL) -> bool:
    """Whether a product of ones in AMX's layout is right; true where llama.cpp itself does without AMX.

    `base` and `cpu` are handles on libggml-base and libggml-cpu. Frees nothing: its process is about to end.
    """
    _declare(base, BASE)
    _declare(cpu, CPU)
    layout = _layout(base, cpu)
    if not layout:
        return True
    apart, here = (base.ggml_init(_Parameters(MEMORY, None, no_alloc)) for no_alloc in (True, False))
    weights = base.ggml_new_tensor_2d(apart, Q4_0, COLUMNS, ROWS)
    inputs = base.ggml_new_tensor_2d(here, F32, COLUMNS, ROWS)
    base.ggml_backend_alloc_ctx_tensors_from_buft(apart, layout)
    ones = ONES * (COLUMNS // BLOCK * ROWS)
    base.ggml_backend_tensor_set(weights, ones, 0, len(ones))
    cpu.ggml_set_f32(inputs, 1.0)
    product, graph = base.ggml_mul_mat(here, weights, inputs), base.ggml_new_graph(here)
    base.ggml_build_forward_expand(graph, product)
    cpu.ggml_graph_compute_with_ctx(here, graph, THREADS)
    return all(abs(value - COLUMNS) < 1 for value in base.ggml_get_data_f32(product)[: ROWS * ROWS])


def _declare(library: CDLL, functions: dict[str, tuple[Any, ...]]) -> None:
    for name, (result, *arguments) in functions.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments


def _layout(base: CDLL, cpu: CDLL) -> int | None:
    """The buffer type in which weights are laid out for AMX, if the CPU backend offers one."""
    registry = cpu.ggml_backend_cpu_reg()
    address = base.ggml_backend_reg_get_proc_address(registry, b"ggml_backend_dev_get_extra_bufts")
    offered = ctypes.CFUNCTYPE(POINTER(c_void_p), c_void_p)(address)(
        base.ggml_backend_reg_dev_get(registry, 0)
    )
    for kind in offered:
        if not kind or base.ggml_backend_buft_name(kind) == LAYOUT:
            return int(kind) if kind else None
    return None
