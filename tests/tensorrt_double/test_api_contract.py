"""Every name of TensorRT that the package uses exists in the oldest, the last 10.x and the newest release."""

from pathlib import Path

import pytest
from trt import usage

import sdtrt
from sdtrt.engines.backends import tensorrt

FILES = sorted(Path(tensorrt.__file__).parent.rglob("*.py"))


@pytest.fixture
def check(apis, release, tmp_path):
    """check(code) -> problems of a source file in one release."""

    def run(code):
        path = tmp_path / "engine.py"
        path.write_text("import tensorrt as trt\n" + code)
        return usage.check([path], apis[release], list(apis.values()))[0]

    return run


def fails_on(release, major):
    return int(release.partition(".")[0]) >= major


def test_all_that_is_used_exists(apis, release):
    problems, _ = usage.check(FILES, apis[release], list(apis.values()))
    assert problems == []


def test_the_check_sees_what_an_engine_must_use(apis, release):
    _, used = usage.check(FILES, apis[release], list(apis.values()))
    assert {
        "Builder.build_serialized_network",
        "BuilderFlag.STRIP_PLAN",
        "ICudaEngine.device_memory_size_v2",
        "IExecutionContext.execute_async_v3",
        "IProgressMonitor.step_complete",
        "OnnxParser.parse_from_file",
        "Runtime.deserialize_cuda_engine",
    } <= used
    assert len(used) > 100


def test_only_the_engines_files_import_tensorrt():
    package = Path(sdtrt.__file__).parent
    importing = [
        p
        for p in package.rglob("*.py")
        if any(
            line.split()[:2] in (["import", "tensorrt"], ["from", "tensorrt"]) for line in p.read_text().splitlines()
        )
    ]
    assert set(importing) <= set(FILES)


# ------------------------------------------------------------------------------------ names that were removed in 11

REMOVED = [
    ("trt.BuilderFlag.FP16", "BuilderFlag.FP16"),
    ("def f(engine: trt.ICudaEngine): return engine.device_memory_size", "ICudaEngine.device_memory_size"),
    (
        "def f(b: trt.Builder):\n    c = b.create_builder_config()\n    c.int8_calibrator = None",
        "IBuilderConfig.int8_calibrator",
    ),
    ("def f(e: 'trt.ICudaEngine | None'): e.create_execution_context_without_device_memory()", "without_device_memory"),
    ("def f(p: trt.OnnxParser): p.supports_model(b'')", "OnnxParser.supports_model"),
    ("class R(trt.IStreamReader):\n    def read(self, size): return b''", "IStreamReader"),
    (
        "def f(x: list[trt.ILayer]):\n    for layer in x:\n        layer.precision = trt.DataType.HALF",
        "ILayer.precision",
    ),
    ("def f(x: list[trt.ILayer]): return [layer.precision for layer in x]", "ILayer.precision"),
    (
        "class A:\n    def __init__(self, e: trt.ICudaEngine): self.e = e\n    def f(self): self.e.device_memory_size",
        "device_memory_size",
    ),
    ("def make() -> trt.ICudaEngine: ...\ndef f(): return make().device_memory_size", "device_memory_size"),
    ("class A:\n    e: trt.ICudaEngine\ndef f(a: A): a.e.device_memory_size", "device_memory_size"),
    ("def f(e: trt.ICudaEngine):\n    def g(): return e.device_memory_size\n    return g", "device_memory_size"),
    ("if hasattr(trt.BuilderFlag, 'INT8'):\n    trt.BuilderFlag.FP16", "BuilderFlag.FP16"),
    ("getattr(trt.BuilderFlag, 'FP16')", "BuilderFlag.FP16"),
]


@pytest.mark.parametrize(("code", "name"), REMOVED, ids=[name + str(i) for i, (_, name) in enumerate(REMOVED)])
def test_a_removed_name_is_found_in_11_alone(check, release, code, name):
    problems = check(code)
    if fails_on(release, 11):
        assert any(name in p and f"is not in TensorRT {release}" in p for p in problems), problems
    else:
        assert problems == []


@pytest.mark.parametrize(
    "code",
    [
        "getattr(trt.BuilderFlag, 'FP16', None)",
        "if hasattr(trt.BuilderFlag, 'FP16'):\n    trt.BuilderFlag.FP16",
        "x = trt.BuilderFlag.FP16 if hasattr(trt.BuilderFlag, 'FP16') else None",
        "def f(e: trt.ICudaEngine):\n    return hasattr(e, 'device_memory_size') and e.device_memory_size",
        "def f(r: trt.Refitter):\n    if hasattr(r, 'release_refit_resources'):\n        r.release_refit_resources()",
    ],
)
def test_a_guarded_name_may_be_missing(check, code):
    assert check(code) == []


# ------------------------------------------------------------------------------------ what no release has

WRONG = [
    ("trt.BuilderFlag.FLOAT16", "BuilderFlag.FLOAT16"),
    ("trt.Bilder", "tensorrt.Bilder"),
    ("trt.PrecisionFlag.HALF", "tensorrt.PrecisionFlag"),
    ("def f(c: trt.IExecutionContext): c.set_shape('x', (1,))", "IExecutionContext.set_shape"),
    ("def f(c: trt.IExecutionContext): c.set_input_shape('x')", "takes (name, shape)"),
    ("def f(c: trt.IExecutionContext): c.set_input_shape('x', (1,), 0)", "takes (name, shape)"),
    ("def f(c: trt.IExecutionContext): c.set_input_shape(tensor='x', shape=(1,))", "takes (name, shape)"),
    ("def f(b: trt.Builder): b.build_serialized_network(b.create_network())", "takes (network, config)"),
    ("def f(l: trt.ILogger): trt.Builder()", "takes (logger)"),
    ("def f(b: trt.Builder, l: trt.ILogger): trt.OnnxParser(b, l)", "takes (network, logger)"),
    ("def f(c: trt.IBuilderConfig): c.set_flag(trt.TacticSource.JIT_CONVOLUTIONS)", "set_flag() takes (flag)"),
    ("def f(e: trt.ICudaEngine): e.num_layers = 3", "ICudaEngine.num_layers cannot be set"),
    ("def f(p: trt.ParserError): p.description()", "ParserError.description"),
    ("trt.ICudaEngine()", "takes no call"),
    ("getattr(trt.BuilderFlag, 'FLOAT16', None)", "BuilderFlag.FLOAT16 is in no release"),
    ("def f(n): return getattr(trt.BuilderFlag, n)", "must be written out"),
    ("def f(anything): anything.set_input_shape('x', (1,))", "not followed"),
    ("def f(anything): return anything.device_memory_size", "not followed"),
    ("class L(trt.ILogger):\n    def log(self, message): ...", "takes 1 arguments, ILogger.log is given 2"),
    (
        "class L(trt.ILogger):\n    def __init__(self): self.x = 1\n    def log(self, severity, msg): ...",
        "does not call trt.ILogger.__init__",
    ),
    (
        "class M(trt.IProgressMonitor):\n    def phase_start(self, a, b, c): ...\n    def phase_finish(self, a): ...",
        "does not override IProgressMonitor.step_complete",
    ),
    (
        "class R(trt.IStreamReaderV2):\n    def read(self, to, size, stream): ...\n    def seek(self, at, where): ...",
        "takes 3 arguments",
    ),
]


@pytest.mark.parametrize(("code", "text"), WRONG, ids=[text + str(i) for i, (_, text) in enumerate(WRONG)])
def test_a_wrong_use_is_found(check, code, text):
    problems = check(code)
    assert any(text in p for p in problems), problems


def test_the_bindings_are_those_of_the_release(apis, release):
    api = apis[release]
    assert api.version == release
    assert api.classes["BuilderFlag"]["enum"]["REFIT"] == 4
    assert ("FP16" in api.classes["BuilderFlag"]["enum"]) == (not fails_on(release, 11))
    assert [p["name"] for p in api.member("Builder", "build_serialized_network")["signatures"][0]["parameters"]] == [
        "network",
        "config",
    ]
