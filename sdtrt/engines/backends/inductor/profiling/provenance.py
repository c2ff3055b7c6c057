"""The Python that Inductor wrote, with a comment before every launch that names the graph's nodes.

Inductor writes this comment for Triton kernels and library calls, but not for its C++ kernels.
"""

from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch


def commented() -> AbstractContextManager[Any]:
    """While open, Inductor writes the comment for C++ kernels too."""
    from torch._inductor.codegen.cpp import CppScheduling
    from torch._inductor.utils import get_kernel_metadata
    from torch._inductor.virtualized import V

    inherited: Any = CppScheduling.codegen_comment

    def comment(self: Any, nodes: Any, *args: Any, **kwargs: Any) -> None:
        inherited(self, nodes, *args, **kwargs)
        wrapper = V.graph.wrapper_code
        wrapper.make_comment(get_kernel_metadata(nodes, wrapper)[0])

    return patch.object(CppScheduling, "codegen_comment", comment)


def code_of(compiled: Any) -> str:
    """The Python that a compiled artifact runs."""
    import torch._functorch.config as functorch

    with functorch.patch("bundled_autograd_cache", True):
        entry = compiled.inner_fn.compiled_fn.serialize()
    return str(entry.compiled_fw.result.source_code)
