"""The plan that an EnginePlan shows: from files that are named, or from what `load` finds at a path."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from sdtrt import readers
from sdtrt.analysis.load import load
from sdtrt.analysis.onnx_join import join_onnx
from sdtrt.errors import PlanError
from sdtrt.plan.layers import Plan
from sdtrt.readers.documents import Document, parse

# A path, what json.loads makes of a graph file, or its list of layers.
Source: TypeAlias = str | Path | Sequence[Mapping[str, Any]] | Mapping[str, Any]
File: TypeAlias = str | Path | None
DENOISER = "unet"


def name_of(source: Source) -> str:
    """The last part of a path; nothing for layers that are given as they are."""
    return Path(source).name if isinstance(source, str | Path) else ""


def read_plan(
    source: Source,
    profile: File,
    metadata: Sequence[File],
    profile_id: int,
    onnx: File,
    shapes: Mapping[str, tuple[int, ...]] | None,
    component: str | None,
) -> Plan:
    """The plan at `source`.

    Args:
        source: a graph file, a folder, a `plan.json`, or parsed layers.
        profile: the profile JSON, or None.
        metadata: metadata files; one that does not exist is left out, as in TREx.
        profile_id: number of the engine's optimization profile.
        onnx: the ONNX file that the engine was built from, or None.
        shapes: shapes of the ONNX inputs; those of the engine's files by default.
        component: which engine of a bundle; the U-Net by default.

    Raises:
        PlanError: no engine is described here, or not the one that `component` names.
    """
    if isinstance(source, str | Path) and (Path(source).is_dir() or Path(source).name == "plan.json"):
        return _of_component(load(source, onnx=onnx, shapes=shapes, profile=profile_id).plans, source, component)
    graph = parse(Path(source)) if isinstance(source, str | Path) else Document(Path("layers"), source)
    files = [parse(Path(file)) for file in metadata if file and Path(file).exists()]
    documents = [graph, *([parse(Path(profile))] if profile else []), *files]
    reader = readers.format_of(graph)
    if reader is None:
        raise PlanError(
            "this is no layer report of an engine",
            slug="plan-unknown",
            received=graph.path,
            expected="a graph.json of trtexec --exportLayerInfo, a plan.json or a profile of ONNX Runtime",
        )
    name = component or name_of(source).partition(".")[0] or "engine"
    plan: Plan = readers.load(reader).read(documents, name, profile_id)
    return plan if onnx is None else join_onnx(plan, Path(onnx), shapes)


def _of_component(plans: Sequence[Plan], source: object, component: str | None) -> Plan:
    by_name = {plan.component: plan for plan in plans}
    name = component or (plans[0].component if len(plans) == 1 else DENOISER)
    if name not in by_name:
        raise PlanError(
            "there are several engines here, or not the one that was asked for",
            slug="plan-component",
            received=f"{source}, component {component!r}",
            expected=", ".join(by_name),
            hint='name one: EnginePlan(path, component="...")',
        )
    return by_name[name]
