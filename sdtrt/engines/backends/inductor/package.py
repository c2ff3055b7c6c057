"""Compiled code as a file: made once, loaded in a fresh process in seconds, compiling nothing.

The form is Inductor's standalone artifact, ahead of time: one file with the code, the kernels' binaries and nothing of
the weights, which are arguments. An AOTInductor package would be the other choice: with torch 2.11 loading one ended in
a segmentation fault on an H200, even for a single linear layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdtrt.engines.backends.inductor.trace import Graph

if TYPE_CHECKING:
    from torch import Tensor

LONGEST_ROW = 2048
Compiled = Callable[..., Any]


def arguments(graph: Graph) -> list[str]:
    """Placeholders in the order in which compiled code takes them."""
    return [node.name for node in graph.nodes.find_nodes(op="placeholder")]


def compile_to(graph: Graph, inputs: Mapping[str, Tensor], path: Path, settings: Mapping[str, Any]) -> Compiled:
    """Compile for exactly these inputs and write the package.

    Args:
        graph: the graph, which compilation changes.
        inputs: input tensors by placeholder; their shapes are compiled in.
        path: the package's file.
        settings: Inductor's configuration.

    Returns:
        The same as `load`.
    """
    import torch
    from torch._inductor import standalone_compile
    from torch._inductor.virtualized import V

    given = {**graph.weights, **inputs}
    with torch.no_grad(), V.set_choices_handler(_choices()):
        made = standalone_compile(
            graph.module,
            [given[name] for name in arguments(graph)],
            dynamic_shapes="from_example_inputs",
            options={"config_patches": dict(settings)},
            aot=True,
        )
    made.save(path=str(path), format="binary")
    return made


def load(path: Path) -> Compiled:
    """Load a package, which runs code: the caller has checked where it comes from."""
    from torch._inductor.standalone_compile import CompiledArtifact

    return CompiledArtifact.load(path=str(path), format="binary")


def _choices() -> Any:
    """Inductor's choices, except that a row of up to 2048 numbers is reduced at once, not in a loop.

    A LayerNorm over 1280 channels then reads its input once. Inductor's own limit is 1024.
    """
    from torch._inductor.choices import InductorChoices

    class Choices(InductorChoices):
        @staticmethod
        def should_use_persistent_reduction(features: Any, cooperative_reduction: bool) -> bool:
            inner = "INNER" in str(features.get_reduction_hint())
            size = features.reduction_numel
            if inner and not cooperative_reduction and getattr(size, "is_Integer", False) and int(size) <= LONGEST_ROW:
                return True
            return bool(InductorChoices.should_use_persistent_reduction(features, cooperative_reduction))

    return Choices()
