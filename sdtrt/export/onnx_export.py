"""capture(): one component, traced once, as an ONNX file whose node names hold their diffusers modules.

The exporter keeps each node's module path in metadata that onnx-graphsurgeon drops, so the path is moved into the node
name here, before any pass: "/down_blocks.0/resnets.1/conv1/Conv". Names of engine layers and reports come from it.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sdtrt.errors import ExportError
from sdtrt.plan.node_names import SCOPES, node_path
from sdtrt.shapes.profile_selection import dynamic_dims
from sdtrt.shapes.sample_inputs import sample_inputs
from sdtrt.shapes.spec import ComponentSpec, ShapeProfile

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch import nn
    from torch.export import ExportedProgram

MODEL = "model.onnx"
WEIGHTS = "model.onnx.data"
# A smaller tensor stays in the ONNX file itself, where constant folding can read it.
EXTERNAL_BYTES = 1024
_INNER = "inner."  # the wrappers of `models` keep the checkpoint's module under this name


def capture(spec: ComponentSpec, module: nn.Module, profiles: Sequence[ShapeProfile], opset: int, folder: Path) -> Path:
    """Trace `module` and write it as ONNX.

    A symbol that has one size in all profiles becomes a constant, every other a dynamic axis. Weights are external
    data, so that a model above protobuf's 2 GB can be written and passes need not read them.

    Args:
        spec: the component.
        module: its module, with the inputs and outputs of `spec`.
        profiles: all sizes of the build.
        opset: of ONNX's operators.
        folder: where `model.onnx` and its weights are written.

    Returns:
        The path of the ONNX file.

    Raises:
        ExportError: when torch cannot trace the module, or its code fixes an axis that must be dynamic.
    """
    import torch
    from onnxscript.optimizer import optimize_ir

    from sdtrt.export import quantized_layers

    dynamic = dynamic_dims(spec, profiles)
    tensors = sample_inputs(spec, _sample_sizes(spec, profiles, dynamic))
    shapes = {t.name: {a: torch.export.Dim.AUTO for a, e in t.axes().items() if e.key in dynamic} for t in spec.inputs}
    try:
        with _quiet(), torch.inference_mode():
            program = torch.onnx.export(
                module,
                kwargs=tensors,
                dynamo=True,
                dynamic_shapes=shapes,
                input_names=[t.name for t in spec.inputs],
                output_names=[t.name for t in spec.outputs],
                opset_version=opset,
                custom_translation_table=quantized_layers.translations(),
                optimize=False,
                verbose=False,
            )
            if program is not None:
                weights = list(program.model.graph.initializers.values())
                optimize_ir(program.model, should_fold=_keep_weights)
    except Exception as exc:
        raise ExportError(
            f"{spec.name} could not be exported to ONNX",
            slug="export-failed",
            received=f"{type(exc).__name__}: {str(exc)[:300]}",
            expected="a graph that torch.export can trace",
            hint="build with the tested versions of constraints.txt, or report the model that fails",
        ) from exc
    if program is None or program.exported_program is None:
        raise ExportError(f"the exporter returned nothing for {spec.name}")
    _check_axes(spec, program.exported_program, dynamic)
    name_nodes(program.model)
    _save(program.model, folder / MODEL)
    for value in (*weights, *program.model.graph.initializers.values()):
        value.const_value = None  # onnxscript's rewriter keeps the last graph that it matched, with all its weights
    return folder / MODEL


def name_nodes(model: ir.Model) -> None:
    """Rename every node to its module path and operator; a node without a path takes that of its producer."""
    seen: dict[str, int] = {}
    paths: dict[int, str] = {}
    for node in model.graph:
        scopes = node.metadata_props.get(SCOPES)
        feeding = (paths[id(p)] for v in node.inputs if v is not None and (p := v.producer()) and id(p) in paths)
        path = node_path(scopes) if scopes else next(feeding, "")
        paths[id(node)] = path
        name = f"{path}/{node.op_type}"
        seen[name] = seen.get(name, 0) + 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name] - 1}"


def _keep_weights(node: ir.Node) -> bool | None:
    """Never fold a parameter into a nameless constant: a LoRA finds its layer by the parameter's name."""
    named = (v.name or "" for v in node.inputs if v is not None and v.is_initializer())
    return False if any(name.startswith(_INNER) for name in named) else None


def _sample_sizes(spec: ComponentSpec, profiles: Sequence[ShapeProfile], dynamic: set[str]) -> dict[str, int]:
    """Sizes to trace at: distinct and above one, so that torch neither merges two axes nor makes one a constant.

    With fine steps the traced size is odd in latents: the U-Net then takes its upsampling sizes from the skip
    connections instead of doubling.
    """
    sizes = profiles[0].sizes("opt")
    for symbol, factor in (("H", 2), ("W", 3)):
        if f"1{symbol}" in dynamic:
            step = spec.steps(profiles)[symbol]
            sizes[symbol] = step * (factor if step > spec.scale else 2 * factor + 13)
    if {"1B", "2B"} & dynamic:
        sizes["B"] = 2
    if "1T" in dynamic:
        sizes["T"] += 1
    return sizes


def _check_axes(spec: ComponentSpec, program: ExportedProgram, dynamic: set[str]) -> None:
    """ExportError for an axis that the module's code fixes: the exporter narrows its range to one size silently."""
    fixed = {str(symbol) for symbol, sizes in program.range_constraints.items() if sizes.lower == sizes.upper}
    nodes = {node.name: node for node in program.graph.nodes}
    for tensor, name in zip(spec.inputs, program.graph_signature.user_inputs, strict=False):
        shape = nodes[str(name)].meta["val"].shape
        for axis, expr in tensor.axes().items():
            if expr.key in dynamic and (isinstance(shape[axis], int) or str(shape[axis]) in fixed):
                raise ExportError(
                    f"axis {axis} of {spec.name}.{tensor.name} is fixed by the model's code",
                    slug="export-static",
                    received=f"a graph for {tensor.name} {tuple(map(str, shape))}",
                    expected=f"a dynamic {expr.symbol}",
                    hint=f"fix {expr.symbol} to one size in the profile",
                )


def _save(model: ir.Model, path: Path) -> None:
    import onnx_ir as ir

    for node in model.graph:
        node.metadata_props.clear()
    for value in list(model.graph.initializers.values()):
        value.name = (value.name or "").removeprefix(_INNER)
    path.parent.mkdir(parents=True, exist_ok=True)
    ir.save(model, path, external_data=WEIGHTS, size_threshold_bytes=EXTERNAL_BYTES)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes, which are for its developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
