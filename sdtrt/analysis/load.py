"""load(): an `Analysis` of the files that describe engines.

A bundle, a component's folder, a plan.json, a folder with the files of trtexec or TREx, any one of those files (its
siblings are found by name), a profile of ONNX Runtime, or a list of these. `sdtrt.readers` has the formats.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path

from sdtrt import readers
from sdtrt.analysis.device_peaks import DevicePeaks
from sdtrt.analysis.onnx_join import Shapes, check_names, join_onnx, names_of
from sdtrt.analysis.session import Analysis
from sdtrt.bundle.bundle import Bundle
from sdtrt.bundle.manifest import MANIFEST, Manifest
from sdtrt.errors import ConfigError, PlanError
from sdtrt.plan.image_timing import FILE, ImageRun
from sdtrt.plan.layers import Plan
from sdtrt.readers.documents import Document, parse

StrPath = str | os.PathLike[str]
PLAN = "plan.json"
# Words that programs append to file names to distinguish an engine's files; the rest is the engine's name.
_ROLES = re.compile(
    r"(?:export)?(?:layer_?info|layers?|graph|profile|timings?|times|metadata|build)(?![a-z])", re.IGNORECASE
)
_ENDINGS = re.compile(r"(?:\.(?:onnx|engine|plan|trt|json))+$", re.IGNORECASE)
_TIMESTAMP = re.compile(r"_+\d{4}-\d{2}-\d{2}_[\d_-]+$")
_NAMELESS = frozenset({"", "model", "engine", "onnxruntime_profile"})
_FOLDERS = 64


def load(
    source: StrPath | Sequence[StrPath],
    *,
    onnx: StrPath | Mapping[str, StrPath] | None = None,
    shapes: Shapes | None = None,
    profile: int = 0,
    run: ImageRun | StrPath | None = None,
    peaks: DevicePeaks | StrPath | None = None,
) -> Analysis:
    """Read engines and the files that belong to them.

    Args:
        source: the path of an engine or a bundle; several as a list.
        onnx: the ONNX file that the engine was built from, or such files by component. Layers then have the FLOPs,
            weights and modules of the nodes that they implement.
        shapes: sizes of the ONNX inputs; those of the engine's files by default.
        profile: optimization profile of a TensorRT engine that has several.
        run: a timed image, as object or file; a bundle's own otherwise.
        peaks: peak rates of the device, as object or file; looked up by the device's name otherwise.

    Raises:
        PlanError: a file is missing, of an unknown format or wrong.
        BundleError: the bundle is damaged.
        GraphError: the costs of an ONNX file are unknown, or it is not the engine's.
        ConfigError: an engine or input that is named does not exist.
    """
    sources = [source] if isinstance(source, str | os.PathLike) else list(source)
    found = [_read(Path(one), profile) for one in sources]
    plans = _distinct([pair for pairs, _ in found for pair in pairs])
    if onnx is not None:
        plans = _joined(plans, onnx, shapes or {})
    elif shapes:
        raise ConfigError(
            "shapes are sizes of an ONNX file's inputs, and there is no file",
            slug="shapes-onnx",
            hint="add --onnx FILE",
        )
    if run is None and len(sources) == 1 and (Path(sources[0]) / FILE).is_file():
        run = Path(sources[0]) / FILE
    return Analysis(
        plans=tuple(plans),
        manifest=found[0][1] if len(found) == 1 else None,
        run=ImageRun.load(Path(run)) if isinstance(run, str | os.PathLike) else run,
        peaks=DevicePeaks.load(Path(peaks)) if isinstance(peaks, str | os.PathLike) else peaks,
    )


def load_plans(path: StrPath) -> tuple[list[Plan], Manifest | None]:
    """The plans at `path`; the manifest is None for what is no bundle."""
    analysis = load(path)
    return list(analysis.plans), analysis.manifest


def _read(path: Path, profile: int) -> tuple[list[tuple[Plan, Path]], Manifest | None]:
    """Plans of one source, each with the folder it came from, and the source's manifest."""
    if path.suffix == ".json" and not path.exists():
        raise PlanError("there is no such file", slug="plan-missing", received=path)
    if path.is_file() and path.name != MANIFEST:
        return [(_from_file(path, profile), path.parent)], None
    if not path.exists() or path.name == MANIFEST or (path / MANIFEST).is_file():
        bundle = Bundle.open(path.parent if path.name == MANIFEST else path)
        return [(bundle.plan(name), bundle.path) for name in bundle.manifest.components], bundle.manifest
    below = (p for p in sorted(path.iterdir())[:_FOLDERS] if p.is_dir())
    for folders in ([path], below):
        plans = [(plan, folder) for folder in folders for plan in _from_folder(folder, profile)]
        if plans:
            return plans, None
    raise _unknown(path)


def _from_file(path: Path, profile: int) -> Plan:
    """The engine that a file belongs to, with the other files of its name beside it."""
    if path.name == PLAN:
        return Plan.load(path)
    document = parse(path)
    reader = readers.format_of(document)
    if reader is None:
        raise _unknown(path)
    documents = [document]
    if reader == "tensorrt":
        siblings = [_sibling(p) for p in sorted(path.parent.glob("*.json")) if p != path and _key(p) == _key(path)]
        documents += [d for d in siblings if d is not None and readers.format_of(d) == reader]
    return _plan(reader, documents, profile)


def _from_folder(folder: Path, profile: int) -> list[Plan]:
    """Every engine in a folder, by the names of its files; one engine's files may have any names."""
    if (folder / PLAN).is_file():
        return [Plan.load(folder / PLAN)]
    groups: dict[tuple[str, str], list[Document]] = {}
    for path in sorted(folder.glob("*.json")):
        document = _sibling(path)
        reader = None if document is None else readers.format_of(document)
        if document is not None and reader is not None:
            key = _key(path) if reader == "tensorrt" else path.name
            groups.setdefault((reader, key), []).append(document)
    tensorrt = [g for (reader, _), g in groups.items() if reader == "tensorrt"]
    if sum(map(_has_layers, tensorrt)) == 1:
        whole = sorted(tensorrt, key=_has_layers, reverse=True)
        groups = {k: g for k, g in groups.items() if k[0] != "tensorrt"}
        groups["tensorrt", ""] = list(chain.from_iterable(whole))
    return [_plan(reader, documents, profile) for (reader, _), documents in groups.items()]


def _has_layers(documents: Iterable[Document]) -> bool:
    from sdtrt.readers.formats.tensorrt.reader import role_of

    return any(role_of(d) == "graph" for d in documents)


def _sibling(path: Path) -> Document | None:
    """A file beside the one that was named, or None if it is not JSON; an error if its ending promises a report."""
    try:
        return parse(path)
    except PlanError:
        if path.name.endswith((".graph.json", ".profile.json", ".timing.json", ".metadata.json", PLAN)):
            raise
        return None


def _plan(reader: str, documents: Sequence[Document], profile: int) -> Plan:
    plan: Plan = readers.load(reader).read(documents, _component(documents[0].path), profile)
    return plan


def _key(path: Path) -> str:
    """What the files of one engine have in common: "unet.onnx.engine" in "unet.onnx.engine.build.metadata.json"."""
    return re.sub(r"[._\- ]+", ".", _ROLES.sub("", path.name.removesuffix(".json"))).strip(".").lower()


def _component(path: Path) -> str:
    """The engine's name: that of its files, or of their folder where they have none of their own."""
    plain = _ROLES.sub("", path.name.removesuffix(".json")).strip("._- ")
    name = _TIMESTAMP.sub("", _ENDINGS.sub("", plain)).strip("._- ")
    return path.resolve().parent.name or "engine" if name.lower() in _NAMELESS else name


def _distinct(plans: Sequence[tuple[Plan, Path]]) -> list[Plan]:
    """Components that occur more than once have the name of their folder before theirs, then a number."""
    counts = Counter(plan.component for plan, _ in plans)
    named: Counter[str] = Counter()
    made = []
    for plan, folder in plans:
        name = plan.component
        if counts[name] > 1:
            name = f"{folder.resolve().name}/{name}"
        named[name] += 1
        name = name if named[name] == 1 else f"{name} {named[name]}"
        made.append(plan if name == plan.component else plan.model_copy(update={"component": name}))
    return made


def _joined(plans: Sequence[Plan], onnx: StrPath | Mapping[str, StrPath], shapes: Shapes) -> list[Plan]:
    """The plans with the costs of their ONNX files; a component without one stays as it is."""
    joined = []
    for plan in plans:
        path = next((onnx[n] for n in names_of(plan) if n in onnx), None) if isinstance(onnx, Mapping) else onnx
        joined.append(plan if path is None else join_onnx(plan, Path(path), shapes))
    check_names(joined, onnx if isinstance(onnx, Mapping) else {}, shapes)
    return joined


def _unknown(path: Path) -> PlanError:
    return PlanError(
        "nothing here describes an engine",
        slug="plan-unknown",
        received=path,
        expected=f"a bundle, or files of {', '.join(readers.names())}",
        hint="name a folder with trtexec's exported JSON files, a plan.json, or a profile of ONNX Runtime",
    )
