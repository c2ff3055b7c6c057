"""Kernels of a CUDA graph that get ready while the one in front still runs: programmatic dependent launch.

A captured graph says that a kernel starts when the one in front has ended, and starting takes a microsecond. A kernel
that itself waits (`griddepcontrol.wait`) before it touches what others write may be launched earlier. Whoever launches
it would have to say so, which Inductor does for kernels of its own making alone (`enable_pdl`, which we leave off): so
the edges of the captured graph are changed, by CUDA's driver, 12.3 and later.
"""

from __future__ import annotations

import ctypes
import sys
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from functools import cache
from typing import Any

_KERNEL = 0  # CU_GRAPH_NODE_TYPE_KERNEL
_WHEN_ENDED, _PROGRAMMATIC = 0, 1  # CU_GRAPH_DEPENDENCY_TYPE_...
_PORT_PROGRAMMATIC = 1  # CU_GRAPH_KERNEL_NODE_PORT_PROGRAMMATIC


class _Edge(ctypes.Structure):
    """CUgraphEdgeData."""

    _fields_ = (
        ("from_port", ctypes.c_ubyte),
        ("to_port", ctypes.c_ubyte),
        ("type", ctypes.c_ubyte),
        ("reserved", ctypes.c_ubyte * 5),
    )


class _Kernel(ctypes.Structure):
    """CUDA_KERNEL_NODE_PARAMS, version 2."""

    _fields_ = (
        ("function", ctypes.c_void_p),
        ("sizes", ctypes.c_uint * 7),  # of grid and block, and shared memory
        ("parameters", ctypes.c_void_p),
        ("extra", ctypes.c_void_p),
        ("kernel", ctypes.c_void_p),
        ("context", ctypes.c_void_p),
    )


def soften(graph: ctypes.c_void_p, names: Collection[str]) -> int:
    """Let kernels of these names be launched before the one in front has ended; returns how many may be.

    `graph` is a CUgraph that has not been instantiated. Only a kernel that has one thing in front, which is a kernel,
    can be; and that one must not have been launched early by others, who may know that it need not wait: then what is
    in front of it might still run. Raises RuntimeError when the driver refuses or is older than 12.3.
    """
    count = ctypes.c_size_t()
    _call("cuGraphGetEdges_v2", graph, None, None, None, ctypes.byref(count))
    froms, tos = (ctypes.c_void_p * count.value)(), (ctypes.c_void_p * count.value)()
    edges = (_Edge * count.value)()
    _call("cuGraphGetEdges_v2", graph, froms, tos, edges, ctypes.byref(count))
    in_front = Counter(tos)
    early = {tos[i] for i in range(count.value) if edges[i].type != _WHEN_ENDED}
    chosen = [
        i
        for i in range(count.value)
        if edges[i].type == _WHEN_ENDED
        and in_front[tos[i]] == 1
        and froms[i] not in early
        and _is_kernel(froms[i])
        and _is_kernel(tos[i])
        and _name(tos[i]) in names
    ]
    if chosen:
        some_froms, some_tos = ((ctypes.c_void_p * len(chosen))(*(a[i] for i in chosen)) for a in (froms, tos))
        before = (_Edge * len(chosen))(*(edges[i] for i in chosen))
        after = (_Edge * len(chosen))(*[_Edge(_PORT_PROGRAMMATIC, 0, _PROGRAMMATIC)] * len(chosen))
        size = ctypes.c_size_t(len(chosen))  # of edges that are all alike: some drivers look at the first one alone
        _call("cuGraphRemoveDependencies_v2", graph, some_froms, some_tos, before, size)
        _call("cuGraphAddDependencies_v2", graph, some_froms, some_tos, after, size)
    return len(chosen)


def _is_kernel(node: int | None) -> bool:
    found = ctypes.c_int()
    _call("cuGraphNodeGetType", ctypes.c_void_p(node), ctypes.byref(found))
    return found.value == _KERNEL


def _name(node: int | None) -> str:
    """A kernel's name; nothing for one whose name the driver does not tell, which is none of ours."""
    parameters, name = _Kernel(), ctypes.c_char_p()
    with suppress(RuntimeError):
        _call("cuGraphKernelNodeGetParams_v2", ctypes.c_void_p(node), ctypes.byref(parameters))
        if parameters.function:
            _call("cuFuncGetName", ctypes.byref(name), ctypes.c_void_p(parameters.function))
        else:
            _call("cuKernelGetName", ctypes.byref(name), ctypes.c_void_p(parameters.kernel))
    return (name.value or b"").decode()


def _call(function: str, *arguments: Any) -> None:
    driver, text = _driver(), ctypes.c_char_p()
    try:
        code = getattr(driver, function)(*arguments)
    except AttributeError as exc:
        raise RuntimeError(f"the CUDA driver has no {function}: it is older than 12.3") from exc
    if code:
        driver.cuGetErrorString(code, ctypes.byref(text))
        raise RuntimeError(f"{function}: {(text.value or b'unknown error').decode()}")


@cache
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
