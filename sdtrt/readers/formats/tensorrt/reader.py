"""TensorRT 8.2 to 11: the inspector's layer file with what trtexec and TREx write beside it.

`X.graph.json` or trtexec's --exportLayerInfo is needed; `X.profile.json` (--exportProfile), `X.timing.json`
(--exportTimes) and `X.*metadata.json` (TREx, from trtexec's log) are used where they are. A file is known by what it
holds, so any names will do.

Names stay as TensorRT wrote them, except that tensors lose the tag of their profile. All other keys of a layer are kept
in `Layer.attributes`.
"""

from collections.abc import Sequence
from typing import Any

from sdtrt.errors import PlanError
from sdtrt.plan.layers import Layer, Plan
from sdtrt.plan.sums import sum_complete
from sdtrt.readers.documents import Document, Omissions
from sdtrt.readers.formats.tensorrt import bindings, kinds, metadata, timings, work
from sdtrt.readers.formats.tensorrt.assign import owned
from sdtrt.readers.formats.tensorrt.blocks import blocks
from sdtrt.readers.formats.tensorrt.nodes import nodes_of, usual_module
from sdtrt.readers.formats.tensorrt.tensors import tensors_of

_TAKEN = frozenset({"Name", "LayerType", "Inputs", "Outputs"})
_FREE = frozenset({"reformat", "copy", "shape"})
_MAX_DEPTH = 12
_REBUILD = "build with --profilingVerbosity=detailed (config.profiling_verbosity = DETAILED) and export again"
# Types of Myelin's layers; all others are TensorRT's own, which compute in the type of their first input.
_MYELIN = frozenset({"kgen", "gemm", "correlation", "fusion", "myelin", "shape_call", "maxpool", "add", "custom_layer"})


def role_of(document: Document) -> str | None:
    """What the file holds: graph, profile, timing, metadata, or None when it is not of this format."""
    name, data = document.path.name, document.data
    if isinstance(data, dict):
        if "Layers" in data or name.endswith(".graph.json"):
            return "graph"
        return "metadata" if metadata.is_metadata(data) or name.endswith(".metadata.json") else None
    if not isinstance(data, list):
        return None
    known = {".graph.json": "graph", ".profile.json": "profile", ".timing.json": "timing", ".metadata.json": "metadata"}
    by_name = next((role for ending, role in known.items() if name.endswith(ending)), None)
    return by_name or _role_by_content([entry for entry in data[:3] if isinstance(entry, dict)], data)


def _role_by_content(entries: list[dict[str, Any]], data: list[Any]) -> str | None:
    if any("LayerType" in e for e in entries):
        return "graph"
    if any("averageMs" in e or "timeMs" in e for e in entries) or (entries and set(entries[0]) == {"count"}):
        return "profile"
    if any("computeMs" in e for e in entries):
        return "timing"
    return "metadata" if metadata.is_devices(data) else None


def sniff(document: Document) -> bool:
    """Whether TensorRT, trtexec or TREx wrote the file."""
    return role_of(document) is not None


def read(documents: Sequence[Document], component: str, profile: int = 0) -> Plan:
    """The plan of one engine's optimization profile."""
    graph = next((d for d in documents if role_of(d) == "graph"), None)
    if graph is None:
        raise PlanError(
            "there are times of a TensorRT engine here, but not its layers",
            slug="plan-graph-missing",
            received=", ".join(d.path.name for d in documents),
            expected="the inspector's file beside them, such as X.graph.json",
            hint="export it: trtexec --loadEngine=FILE --exportLayerInfo=X.graph.json",
        )
    omitted = Omissions()
    facts: metadata.Metadata = {}
    for document in _of(documents, "metadata"):
        for section, values in metadata.sections(document.data, omitted).items():
            facts.setdefault(section, {}).update(_plain(values, omitted, section))
    raw, notes = _layers(graph)
    notes += _doubled(documents)
    by_profile = blocks(raw)
    if not 0 <= profile < len(by_profile):
        raise PlanError(
            "the engine has no such optimization profile",
            slug="plan-profile",
            received=f"{profile} of {graph.path}",
            expected=f"0 to {len(by_profile) - 1}",
        )
    layers = owned([_layer(entry, omitted) for entry in by_profile[profile]])
    times = [timings.records(d.data, omitted) for d in _of(documents, "profile")]
    if len(by_profile) > 1:
        notes.append(f"the engine has {len(by_profile)} optimization profiles; this is number {profile}")
    if times:
        layers, more = _timed(layers, times[0], by_profile, profile)
        notes += more
    inputs, outputs, shapes = bindings.read(graph.data, layers, profile, omitted)
    walls = [timings.run_times(d.data, omitted) for d in _of(documents, "timing")]
    return Plan(
        component=component,
        backend="tensorrt",
        backend_version=None,
        device=metadata.device_name(facts),
        precision=metadata.precision(facts),
        shapes=shapes | metadata.run_shapes(facts),
        layers=tuple(layers),
        inputs=inputs,
        outputs=outputs,
        runs=times[0].runs if times else None,
        wall_times_ms=walls[0] if walls else metadata.gpu_ms(facts),
        total_weight_bytes=sum_complete(x.weight_bytes for x in layers if x.op != timings.UNMATCHED),
        metadata=facts,
        notes=(*(n for d in documents for n in d.notes), *notes, *omitted.notes()),
    )


def _of(documents: Sequence[Document], role: str) -> list[Document]:
    return [d for d in documents if role_of(d) == role]


def _doubled(documents: Sequence[Document]) -> list[str]:
    """Notes on files of a kind that was read already: the first of each kind counts."""
    found = [(role, [d.path.name for d in _of(documents, role)]) for role in ("graph", "profile", "timing")]
    return [
        f"of several {role} files {names[0]} was used, not {', '.join(names[1:])}" for role, names in found if names[1:]
    ]


def _layers(graph: Document) -> tuple[list[dict[str, Any]], list[str]]:
    """Raw layers, each with a name; an engine built without details has names only."""
    entries = graph.data.get("Layers") if isinstance(graph.data, dict) else graph.data
    if not isinstance(entries, list):
        raise _wrong(graph, "Layers", entries, "a list of layers")
    layers: list[dict[str, Any]] = []
    bare = 0
    for index, entry in enumerate(entries):
        if isinstance(entry, str):
            bare += 1
            layers.append({"Name": entry, "LayerType": "unknown"})
        elif isinstance(entry, dict):
            named = isinstance(entry.get("Name"), str)
            layers.append(entry if named else {**entry, "Name": f"(layer {index} without a name)"})
        else:
            raise _wrong(graph, f"Layers[{index}]", entry, "an object, or a name")
    note = f"{bare} layers have names only: {_REBUILD}"
    return layers, [note] if bare else []


def _wrong(graph: Document, field: str, received: object, expected: str) -> PlanError:
    return PlanError(
        f"{field} is wrong in the layers of a TensorRT engine",
        slug="plan-field",
        received=f"{type(received).__name__} {str(received)[:80]!r} in {graph.path}",
        expected=expected,
        hint="export it again: trtexec --exportLayerInfo=FILE",
    )


def _timed(
    layers: list[Layer], times: timings.Records, by_profile: list[list[dict[str, Any]]], profile: int
) -> tuple[list[Layer], list[str]]:
    """A profiler reports the one optimization profile that ran: times of another are not those of these layers."""
    fits = [timings.matches(times.timings, (x["Name"] for x in block)) for block in by_profile]
    best = max(range(len(by_profile)), key=lambda p: (fits[p], p == profile))
    if best != profile:
        return layers, [f"the times are those of optimization profile {best} and were left out: ask for that one"]
    timed, notes = timings.timed(layers, times)
    return timed, list(notes)


def _layer(raw: dict[str, Any], omitted: Omissions) -> Layer:
    """One layer; what has a wrong type is noted and not known."""
    name = raw["Name"]
    layer_type, parameter, tactic = (_text(raw, key, omitted) for key in ("LayerType", "ParameterType", "TacticName"))
    layer_type = layer_type or "unknown"
    kind = kinds.kind_of(layer_type, parameter, tactic, name)
    inputs, outputs = tensors_of(raw, "Inputs", omitted), tensors_of(raw, "Outputs", omitted)
    nodes = nodes_of(raw.get("Metadata"), omitted, name)
    weights = work.weight_bytes(raw, kind, omitted)
    stream = raw.get("StreamId")
    return Layer.model_construct(
        name=name,
        kind=kind,
        op=layer_type,
        kernel=tactic or None,
        precision=kinds.precision_of(kind, layer_type.lower() not in _MYELIN, tactic, inputs, outputs),
        inputs=inputs,
        outputs=outputs,
        nodes=nodes,
        module=usual_module(nodes),
        stream=stream if type(stream) is int else None,
        weight_bytes=weights,
        bytes_moved=0 if kind == "shape" else work.bytes_moved(weights, (*inputs, *outputs)),
        flops=work.flops(raw, inputs, outputs) if kind == "conv" else 0 if kind in _FREE else None,
        attributes=_plain({k: v for k, v in raw.items() if k not in _TAKEN}, omitted, name),
    )


def _text(raw: dict[str, Any], key: str, omitted: Omissions) -> str:
    value = raw.get(key, "")
    if isinstance(value, str):
        return value
    omitted.add(f"{key} that is no text", raw["Name"])
    return ""


def _plain(facts: dict[str, Any], omitted: Omissions, where: str) -> dict[str, Any]:
    """Values as they stand, without those that are nested too deeply to be written again."""
    kept = {k: v for k, v in facts.items() if not isinstance(v, list | dict) or _shallow(v, _MAX_DEPTH)}
    if len(kept) < len(facts):
        omitted.add("a value that is nested too deeply", where)
    return kept


def _shallow(value: Any, depth: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_shallow(v, depth - 1) for v in inner if isinstance(v, list | dict))
