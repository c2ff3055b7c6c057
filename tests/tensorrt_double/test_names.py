"""The double shows what NVIDIA's bindings declare, and is as strict as they are."""

import ast

import pytest
from trt import use

ACTED = (
    *("Builder", "IBuilderConfig", "INetworkDefinition", "OnnxParser", "IOptimizationProfile", "ITimingCache"),
    *("Runtime", "ICudaEngine", "IExecutionContext", "EngineInspector", "Refitter", "OnnxParserRefitter"),
    *("IProgressMonitor", "IProfiler"),
)


@pytest.fixture
def trt(release, cache):
    """The double of every release."""
    with use.tensorrt(release, cache):
        import tensorrt

        yield tensorrt


def public(cls):
    return {n for n in dir(cls) if not n.startswith("_")}


def test_has_every_class_of_the_release_and_no_other(trt, apis, release):
    classes = {n for n in vars(trt) if isinstance(getattr(trt, n), type) and not n.startswith("_") and n != "Any"}
    declared = {n for n in apis[release].classes if "." not in n}
    assert classes - {"Bound"} == declared


@pytest.mark.parametrize("name", ACTED)
def test_a_class_has_every_member_of_the_release_and_no_other(trt, apis, release, name):
    declared = {m for c in (name, *apis[release].classes[name]["bases"]) for m in apis[release].classes[c]["members"]}
    assert public(getattr(trt, name)) == {m for m in declared if not m.startswith("_")}


def test_enumerations_are_those_of_the_release(trt, apis, release):
    for name, entry in apis[release].classes.items():
        if entry["enum"] is not None and "." not in name:
            members = getattr(trt, name).__members__
            assert {n: int(v) for n, v in members.items()} == entry["enum"]


def test_everything_that_is_written_exists_in_some_release(apis):
    """A method that no release declares would be dropped in silence, and never be missed."""
    anywhere = {}
    for api in apis.values():
        for name, entry in api.classes.items():
            anywhere.setdefault(name, set()).update(
                entry["members"], *(api.classes[b]["members"] for b in entry["bases"] if b in api.classes)
            )
    for path in (use.DOUBLE / "tensorrt").glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and any(ast.unparse(d) == "bound" for d in node.decorator_list):
                written = {m.name for m in node.body if isinstance(m, ast.FunctionDef) and not m.name.startswith("_")}
                assert node.name in anywhere
                assert written <= anywhere[node.name], node.name


def test_an_enumeration_is_no_number(trt):
    flag = trt.BuilderFlag.REFIT
    assert (int(flag), flag.value, flag.name, str(flag)) == (4, 4, "REFIT", "BuilderFlag.REFIT")
    assert flag != 4
    assert flag == trt.BuilderFlag(4)
    with pytest.raises(TypeError):
        1 << flag
    with pytest.raises(AttributeError):
        trt.BuilderFlag.NO_SUCH_FLAG  # noqa: B018 (the access is the test)
    assert trt.ILogger.Severity.ERROR < trt.ILogger.Severity.WARNING


@pytest.mark.parametrize(
    "call",
    [
        lambda trt, s: s.builder.create_network(flag=0),
        lambda trt, s: s.builder.build_serialized_network(s.network),
        lambda trt, s: s.config.set_flag(4),
        lambda trt, s: s.config.set_flag(trt.TacticSource.JIT_CONVOLUTIONS),
        lambda trt, s: s.config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1.5),
        lambda trt, s: trt.OnnxParser(s.builder, s.log),
        lambda trt, s: trt.Builder(None),
        lambda trt, s: trt.IBuilderConfig(),
        lambda trt, s: s.config.__class__.builder_optimization_level.__set__(s.config, "3"),
    ],
)
def test_wrong_arguments_are_type_errors(trt, small, call):
    with pytest.raises(TypeError):
        call(trt, small)


def test_an_unknown_attribute_cannot_be_set(small):
    with pytest.raises(AttributeError):
        small.config.fp16 = True
    with pytest.raises(AttributeError):
        small.network.num_layers = 3


def test_a_callback_class_must_call_its_base(trt):
    class Forgetful(trt.IProfiler):
        def __init__(self):
            self.seen = []

    with pytest.raises(TypeError, match=r"IProfiler.__init__\(\) must be called"):
        Forgetful()


def test_what_is_declared_and_not_acted_says_so(small):
    with pytest.raises(NotImplementedError, match="add_convolution_nd"):
        small.network.add_convolution_nd(None, 1, (1, 1), None)
