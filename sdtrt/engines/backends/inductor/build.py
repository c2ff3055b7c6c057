"""Builds an engine: the module is traced, rewritten and compiled once per bucket, and all weights go into one file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdtrt.engines.backends.inductor import buckets, cpp_kernels, package
from sdtrt.engines.backends.inductor.engine_record import BucketRecord, EngineRecord, PartRecord
from sdtrt.engines.backends.inductor.optimize import optimize
from sdtrt.engines.backends.inductor.pass_context import Context
from sdtrt.engines.backends.inductor.profiling import launches, provenance
from sdtrt.engines.backends.inductor.trace import Graph, capture
from sdtrt.engines.base import Source
from sdtrt.errors import EngineError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

WEIGHTS = "weights.safetensors"


def build(source: Source, options: Any, device: torch.device, folder: Path) -> None:
    """Write packages, weights and their record into `folder`.

    Args:
        source: module, profiles and passes of the component.
        options: `InductorOptions`.
        device: the device to compile for; the module moves there and back.
        folder: an empty folder for the engine.

    Raises:
        EngineError: passes merged parameters differently at two sizes.
        ExportError: the model cannot be traced.
        GraphError: a pass failed.
    """
    from safetensors.torch import save_file

    spec, module = source.spec, _in_bfloat16(source) if options.bf16_vae else source.module
    targets = buckets.of(spec, source.profiles, options.rows)
    record = EngineRecord(component=spec.name, buckets=())
    weights: dict[str, Tensor] = {}
    home = next(module.parameters()).device
    module.to(device)
    try:
        if device.type == "cuda":
            _channels_last(module)
        for number, bucket in enumerate(targets):
            source.report(f"compiling {bucket.name}, {number + 1} of {len(targets)}", number / len(targets))
            inputs = {n: t.to(device) for n, t in buckets.example(spec, bucket).items()}
            graph = capture(spec, module, inputs)
            context = Context(device, source.ranges, spec.name)
            step, changes = optimize(graph, source.passes, context)
            if len(targets) > 1:  # the manifest has the passes of the largest size
                changes = tuple(c.model_copy(update={"notes": (*c.notes, f"at {bucket.name}")}) for c in changes)
            bucket_record, bucket_weights = _compile(context.prompt, step, inputs, options, bucket, folder, spec.name)
            names = _added(weights, bucket_weights, bucket.name, graph.sources)
            record = record.model_copy(
                update={
                    "buckets": (*record.buckets, bucket_record.renamed(names)),
                    "passes": changes,
                    "sources": record.sources
                    | {names[n]: tuple(s) for n, s in graph.sources.items() if n in bucket_weights},
                }
            )
    finally:
        module.to(home)
    save_file(weights, folder / WEIGHTS)
    record.save(folder)


def _added(
    weights: dict[str, Tensor], more: Mapping[str, Tensor], bucket: str, sources: Collection[str]
) -> dict[str, str]:
    """Add a bucket's weights to those of the others, each tensor once; returns the names that they have now.

    What passes add is named after nodes, which another size may number differently: one name for two tensors. Those in
    `sources` hold parameters, which a LoRA must find in one place: EngineError when one would be in two.
    """
    names = {}
    for name, tensor in more.items():
        value = tensor.cpu().contiguous()
        same = name not in weights or _equal(weights[name], value)
        if not same and name in sources:
            raise EngineError(
                f"the weight {name} has other values at {bucket}",
                slug="inductor-weights",
                received="two tensors of one name, made of parameters",
                expected="parameters merged alike at all sizes",
                hint="build one engine per size, and report the model",
            )
        names[name] = name if same else f"{name}.{bucket}"
        weights.setdefault(names[name], value)
    return names


def _equal(a: Tensor, b: Tensor) -> bool:
    import torch

    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return False
    return torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))


def _compile(
    prompt: Graph | None,
    step: Graph,
    inputs: Mapping[str, Tensor],
    options: Any,
    bucket: buckets.Bucket,
    folder: Path,
    component: str,
) -> tuple[BucketRecord, dict[str, Tensor]]:
    """Write the packages of one bucket; returns their record and all weights that they take."""
    weights = {**step.weights, **(prompt.weights if prompt else {})}
    handed: dict[str, Tensor] = {}
    parts: dict[str, PartRecord] = {}
    for name, part in (("prompt", prompt), ("step", step)):
        if part is None:
            continue
        tensors = {part.inputs[n]: {**inputs, **handed}[n] for n in part.inputs}
        file = f"{bucket.name}.{name}.inductor"
        arguments, priced = package.arguments(part), launches.priced(part, tensors)
        with provenance.commented(), cpp_kernels.keeping(folder):
            call = package.compile_to(part, tensors, folder / file, options.settings())
        code = provenance.code_of(call)
        launches.plan_of(code, part, priced, arguments, tensors, component).save(launches.path_of(folder / file))
        back = {placeholder: n for n, placeholder in part.inputs.items()}
        parts[name] = PartRecord(file=file, arguments=tuple(back.get(a, a) for a in arguments))
        if part is prompt:
            outputs = call(*[{**part.weights, **tensors}[a] for a in arguments])
            handed = dict(zip([n for n in step.inputs if n not in inputs], outputs, strict=True))
    record = BucketRecord(
        sizes=dict(bucket.sizes), rows=bucket.rows, step=parts["step"], prompt=parts.get("prompt"), handed=tuple(handed)
    )
    return record, weights


def _in_bfloat16(source: Source) -> Any:
    """A VAE that must not be float16 (SDXL's) computing in bfloat16, which has float32's range; others as they are."""
    import copy

    from sdtrt.engines.backends.inductor.bf16 import InBfloat16

    wanted = source.spec.attribute == "vae" and source.spec.dtype == "float32"
    return InBfloat16(copy.deepcopy(source.module)) if wanted else source.module


def _channels_last(module: Any) -> None:
    """Convolutions of a GPU's tensor cores want the channels of a pixel side by side."""
    import torch

    module.to(memory_format=torch.channels_last)


def missing(what: str, name: str, rebuild: str) -> EngineError:
    """The error for a parameter that no weight of the engine holds."""
    return EngineError(
        f"the compiled graph of {what} has no weight for a parameter",
        slug="refit-merged",
        received=name,
        expected="a parameter that the model uses",
        hint=f"rebuild: {rebuild} --force",
    )
