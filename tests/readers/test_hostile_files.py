"""Whatever a file holds, the answer is a plan that can be analyzed and saved, or an error of sdtrt's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from locations import DUMPS
from trt_dump import write

from sdtrt.analysis.load import load
from sdtrt.analysis.session import Analysis
from sdtrt.errors import PlanError, SdtrtError
from sdtrt.plan.layers import Plan

SCRIPT = "</script><script>alert(1)</script>"
DEEP: list = []
for _ in range(300):
    DEEP = [DEEP]
VALUES = [
    *(None, True, 0, -1, 2.5, -0.0, 10**18, 10**30, float("nan"), float("-inf"), 1e308, 3.0),
    *("", "x", SCRIPT, "\x1e\x1f\x00", "\ud800", "[profile 3]", "[profile 99999999999]", "_myl1_", '"', "N/A"),
    *("{ForeignNode[a...b]}", "[ONNX Layer: ", "[ONNX Layer: a]b]", "1x2x-3", "é" * 300, "Half", "kgen"),
    *([], {}, [[]], [None], [-1, -1], [1, "2"], {"Name": 3}, {"Type": "Half", "Count": 2**80}, DEEP),
    *([{"Name": "a", "Dimensions": [0]}], {"name": "a", "timeMs": -1}, {"Layers": []}, [{"count": "x"}]),
]
ENCODED = [json.dumps(value) for value in VALUES]  # a fresh value for each use: changes may nest
FILES = ("graph", "profile", "timing", "profile.metadata", "build.metadata")
QUICK = settings(max_examples=500, deadline=None, database=None, suppress_health_check=list(HealthCheck))


def documents(folder: Path, stem: str, layers: int = 6) -> dict:
    """The parsed files of one engine, of its first layers only, and of the first of a second profile."""
    found = {f: folder / f"{stem}.onnx.engine.{f}.json" for f in FILES}
    data = {f: json.loads(p.read_text()) for f, p in found.items() if p.is_file()}
    every = data["graph"]["Layers"]
    second = next((i for i, x in enumerate(every) if "[profile 1]" in x["Name"]), len(every))
    data["graph"]["Layers"] = every[:layers] + every[second : second + layers]
    return {f: d[: layers + 1] if isinstance(d, list) else d for f, d in data.items()}


@pytest.fixture(scope="module")
def engines(tmp_path_factory) -> list[dict]:
    made = []
    for version, profiles in (("8", 1), ("10", 2), ("11", 1)):
        folder = tmp_path_factory.mktemp("made")
        write(folder, version, profiles)
        made.append(documents(folder, "unet"))
    if DUMPS.is_dir():
        made += [documents(DUMPS / "trt8-resnet18-a100" / n, s) for n, s in (("fp16", "resnet"), ("qat", "resnet-qat"))]
        made.append(documents(DUMPS / "trt10.16-mnist", "mnist"))
    return made


def places(data, found):
    """Every (container, key) in a document."""
    for key in range(len(data)) if isinstance(data, list) else list(data):
        found.append((data, key))
        if isinstance(data[key], list | dict):
            places(data[key], found)
    return found


def mutate(data, where: int, what: int, how: int):
    """Change one place: another value, none, or one more."""
    spots = places(data, [])
    value = json.loads(ENCODED[what])
    if not spots or how == 3:
        return value
    holder, key = spots[where % len(spots)]
    if how == 0:
        del holder[key]
    elif how == 1 and isinstance(holder, list):
        holder.insert(key, holder[key])
    elif how == 2 and isinstance(holder, dict):
        holder[ENCODED[what][:50]] = value
    else:
        holder[key] = value
    return data


def attempt(path: Path, **options) -> Analysis | SdtrtError:
    """What reading a file gives, or the error that it raises."""
    try:
        return load(path, **options)
    except SdtrtError as exc:
        return exc


def check(path: Path, **options) -> None:
    """A plan whose values are what its types say, a table without negative bytes, and a file that reads back."""
    analysis = attempt(path, **options)
    if isinstance(analysis, SdtrtError):
        assert analysis.slug.startswith(("plan", "graph"))
        return
    for plan in analysis.plans:
        assert Plan.model_validate_json(plan.model_dump_json()) == Plan.model_validate(plan.model_dump())
        plan.save(path.parent / "saved.txt")
        assert all(isinstance(n, str) for n in plan.notes)
    for column in ("time_ms", "flops", "io_bytes", "weight_bytes", "bytes_moved"):
        assert not (analysis.frame[column] < 0).any()


# Mostly other values; sometimes a place is removed, doubled or added, or the whole file is replaced.
CHANGES = st.lists(
    st.tuples(st.integers(0, 10**6), st.integers(0, len(VALUES) - 1), st.sampled_from([0, 1, 2, 4, 4, 4, 4, 5, 6])),
    min_size=1,
    max_size=4,
)


def test_times_whose_sum_overflows_are_left_out(engines, tmp_path):
    texts = {f: json.loads(json.dumps(d)) for f, d in engines[0].items()}
    for entry in texts["profile"]:
        entry |= {key: 1e308 for key in entry if key.endswith("Ms")}
    for name, data in texts.items():
        (tmp_path / f"x.{name}.json").write_text(json.dumps(data))
    check(tmp_path / "x.graph.json", profile=0)
    (plan,) = load(tmp_path / "x.graph.json", profile=0).plans
    assert all(layer.time_ms is None for layer in plan.layers)
    assert any("above all sense" in note for note in plan.notes)


@pytest.mark.parametrize(("file", "examples"), [("graph", 1000), ("profile", 300), ("profile.metadata", 150)])
def test_a_changed_file_is_a_plan_or_an_error(engines, tmp_path_factory, file, examples):
    folder = tmp_path_factory.mktemp("changed")

    @settings(QUICK, max_examples=examples)
    @given(engine=st.integers(0, 5), changes=CHANGES, profile=st.sampled_from([0, 0, 0, 0, 0, 1, -1]))
    def run(engine, changes, profile):
        texts = {f: json.dumps(d) for f, d in engines[engine % len(engines)].items()}
        data = json.loads(texts[file]) if file in texts else []
        for change in changes:
            data = mutate(data, *change) if isinstance(data, list | dict) else data
        texts[file] = json.dumps(data)
        for name, text in texts.items():
            (folder / f"x.{name}.json").write_text(text)
        for name in set(FILES) - set(texts):
            (folder / f"x.{name}.json").unlink(missing_ok=True)
        check(folder / "x.graph.json", profile=profile)

    run()


def test_a_torn_file_is_a_plan_or_an_error(engines, tmp_path_factory):
    folder = tmp_path_factory.mktemp("torn")

    @QUICK
    @given(
        engine=st.integers(0, 5),
        start=st.floats(0, 1),
        length=st.floats(0, 1),
        filling=st.binary(max_size=8),
        cut=st.booleans(),
    )
    def run(engine, start, length, filling, cut):
        content = json.dumps(engines[engine % len(engines)]["graph"]).encode()
        at = int(start * len(content))
        end = len(content) if cut else at + int(length * 50)
        (folder / "x.graph.json").write_bytes(content[:at] + filling + content[end:])
        check(folder / "x.graph.json")

    run()


def test_a_broken_engine_with_its_onnx_file_is_a_plan_or_an_error(tmp_path_factory):
    folder = tmp_path_factory.mktemp("joined")
    dump = write(folder, "10")
    graph = dump.graph.read_text()

    @settings(QUICK, max_examples=60)
    @given(changes=CHANGES)
    def run(changes):
        data = json.loads(graph)
        for change in changes:
            data = mutate(data, *change) if isinstance(data, list | dict) else data
        dump.graph.write_text(json.dumps(data))
        check(dump.graph, onnx=dump.onnx)

    run()


def one(tmp_path, text: str) -> Path:
    path = tmp_path / "x.graph.json"
    path.write_text(text)
    return path


@pytest.mark.parametrize("size", [2_000_000])
@pytest.mark.parametrize("piece", ["a", "_myl1", "...", "[ONNX Layer: ", "\x1e", "[profile ", "'", "mha", "1x", " + "])
def test_a_huge_name_takes_no_longer_than_its_length(tmp_path, size, piece):
    text = piece * (size // len(piece))
    layer = {"Name": f"{{ForeignNode[{text}", "LayerType": "kgen", "TacticName": f"__myl_A{text}", "Metadata": text}
    tensor = {"Name": text, "Dimensions": [1, -1], "Format/Datatype": text}
    path = one(tmp_path, json.dumps({"Layers": [{**layer, "Inputs": [tensor], "Outputs": [tensor]}]}))
    plan = load(path).plans[0]
    assert plan.layers[0].name == layer["Name"]


@pytest.mark.parametrize("depth", [200, 990, 100_000])
def test_deep_nesting_is_left_out_or_an_error(tmp_path, depth):
    path = one(tmp_path, '{"Layers": [{"Name": "a", "LayerType": "x", "Deep": ' + "[" * depth + "]" * depth + "}]}")
    found = attempt(path)
    if isinstance(found, PlanError):
        assert found.slug == "plan-json"
    else:
        assert "Deep" not in found.plans[0].layers[0].attributes
        assert "nested too deeply" in found.plans[0].notes[-1]


def test_a_script_stays_a_name(tmp_path):
    path = one(tmp_path, json.dumps([{"Name": SCRIPT, "LayerType": SCRIPT, "Inputs": [], "Outputs": []}]))
    assert load(path).plans[0].layers[0].name == SCRIPT
