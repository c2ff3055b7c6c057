"""Where generated code comes from: the text that Inductor wrote, with the graph's nodes named in front of every launch.

Inductor says so itself for Triton kernels and library calls, but not for its C++ kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def commented() -> Iterator[None]:
    """What is compiled meanwhile has the comment in front of C++ kernels, too."""
    from torch._inductor.codegen.cpp import CppScheduling
    from torch._inductor.utils import get_kernel_metadata
    from torch._inductor.virtualized import V

    scheduling: Any = CppScheduling
    inherited = "codegen_comment" not in vars(scheduling)
    before = scheduling.codegen_comment

    def comment(self: Any, nodes: Any, *given: Any, **named: Any) -> None:
        before(self, nodes, *given, **named)
        wrapper = V.graph.wrapper_code
        wrapper.make_comment(get_kernel_metadata(nodes, wrapper)[0])

    scheduling.codegen_comment = comment
    try:
        yield
    finally:
        if inherited:
            del scheduling.codegen_comment
        else:
            scheduling.codegen_comment = before


def code_of(compiled: Any) -> str:
    """The Python that a compiled artifact runs."""
    import torch._functorch.config as functorch

    with functorch.patch("bundled_autograd_cache", True):
        entry = compiled.inner_fn.compiled_fn.serialize()
    return str(entry.compiled_fw.result.source_code)
