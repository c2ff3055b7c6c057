"""The self-test as a user runs it: on the double, with faults in it, and where TensorRT is missing."""

import json

import pytest
import shared_exports
from trt import bindings, use

from sdtrt import cli, engines, selftest
from sdtrt.engines.backends.tensorrt import self_checks
from sdtrt.errors import ConfigError
from sdtrt.selftest import _bench, _common, _runner, _tensorrt

NAMES = [c.name for c in (*_common.CASES, *_tensorrt.CASES)]
RELEASES = ("10.16.1.11", bindings.NEWEST)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def exports(cache):
    """One graph for all: TensorRT's half of it would be another."""
    with pytest.MonkeyPatch.context() as patch, shared_exports.shared(cache / "exports"):
        patch.setattr(_bench, "bench", lambda name, folder: _bench.Bench(engines.load(name), "fp32", folder))
        yield


@pytest.fixture(scope="module", params=RELEASES)
def done(request, apis, cache, exports, tmp_path_factory):
    """The self-test of the TensorRT backend on the double: (result, file)."""
    file = tmp_path_factory.mktemp("selftest") / "deep" / "self-test.json"
    with use.tensorrt(request.param, cache), pytest.MonkeyPatch.context() as patch:
        patch.setattr(selftest, "BACKENDS", ("tensorrt",))
        result = selftest.run(file)
    return result, file


def by_name(result):
    return {c.name: c for c in result.checks}


def test_everything_passes_on_the_double(done):
    result, _ = done
    assert [c.name for c in result.checks] == NAMES
    assert {c.name: c.reason for c in result.checks if c.status != "passed"} == {}
    assert not result.failed
    assert all(c.seconds >= 0 for c in result.checks)


def test_the_figures_say_what_was_measured(done):
    checks = by_name(done[0])
    assert 0 < max(checks["parity"].figures.values()) < 1e-3
    assert set(checks["rows"].figures.values()) == {0.0}
    assert checks["profiles"].figures == {"size 0": 0, "size 1": 1}
    assert checks["graphs"].figures["unet replayed"] > 0
    assert checks["attention"].figures["fused"] == checks["attention"].figures["attentions"] > 0
    assert 0 < checks["refit"].figures["error after"] < 1e-3
    assert checks["layers"].figures["sum ms"] > 0
    assert "satisfyProfile" in checks["words"].figures["outside-profile"]


def test_the_file_is_the_result(done):
    result, file = done
    data = json.loads(file.read_text())
    assert data["format"] == 1
    assert selftest.SelfTest.model_validate(data) == result
    assert data["environment"]["packages"]["torch"]
    assert result.backends["tensorrt"].endswith(" on Double GPU, sm 8.9")
    text = file.with_suffix(".md").read_text()
    assert all(c.title in text for c in result.checks)
    assert f"{len(NAMES)} passed" in text


# ------------------------------------------------------------------------------------ what it finds


@pytest.fixture
def bench(exports, apis, cache, tmp_path):
    """A bench on the double with its engines built."""
    with use.tensorrt(bindings.NEWEST, cache):
        made = _bench.bench("tensorrt", tmp_path)
        yield made
        made.close()


@pytest.fixture
def ready(bench):
    _common.build(bench)
    return bench


@pytest.mark.parametrize(
    ("fault", "check", "words"),
    [
        ("rows-differ", _common.rows, "equal rows"),
        ("rows-differ", _common.parity, "relative error"),
        ("nan", _common.parity, "relative error inf"),
        ("capture-fails", _tensorrt.graphs, "was not captured"),
    ],
)
def test_a_fault_of_tensorrt_is_found(ready, monkeypatch, fault, check, words):
    monkeypatch.setenv("TENSORRT_DOUBLE_FAULTS", fault)
    with pytest.raises(_runner.Failed, match=words) as caught:
        check(ready)
    assert caught.value.figures


def test_a_plan_that_should_be_refused_and_is_not_is_found(ready, monkeypatch):
    monkeypatch.setattr(self_checks, "_VERSION", slice(4, 8))  # another field of the header
    with pytest.raises(_runner.Failed, match="it was loaded"):
        _tensorrt.foreign_plan(ready)


def test_a_message_that_the_table_does_not_know_is_found(ready, monkeypatch):
    monkeypatch.setattr(self_checks.error_table, "CASES", ())
    with pytest.raises(_runner.Failed, match=r"is not known: .*satisfyProfile"):
        _tensorrt.messages(ready)


def test_a_build_that_fails_skips_what_needs_it(bench, monkeypatch):
    monkeypatch.setenv("TENSORRT_DOUBLE_FAULTS", "no-implementation")
    saved = []
    runner = _runner.Runner(saved.append)
    runner.run((*_common.CASES, *_tensorrt.CASES), "tensorrt", bench)
    checks = {c.name: c for c in runner.done}
    assert checks["build"].status == "failed"
    assert "(build-no-kernel)" in checks["build"].reason
    assert {c.status for n, c in checks.items() if n != "build"} == {"skipped"}
    assert checks["parity"].reason == "load did not pass"


# ------------------------------------------------------------------------------------ how it runs


def passes(subject):
    return {"seen": str(subject)}


def breaks(subject):
    raise ZeroDivisionError("by zero")


def explains(subject):
    raise ConfigError("wrong", slug="config-x", hint="mend it")


def skips(subject):
    raise _runner.Skipped("not here")


CASES = tuple(
    _runner.Case(name, f"it {name}", check, needs)
    for name, check, needs in (
        ("passes", passes, ()),
        ("breaks", breaks, ("passes",)),
        ("explains", explains, ()),
        ("skips", skips, ()),
        ("last", passes, ("breaks",)),
    )
)


def test_a_check_that_fails_stops_none_of_the_others():
    runner = _runner.Runner(lambda checks: None)
    runner.run(CASES, "any", 7)
    found = {c.name: (c.status, c.reason.partition("\n")[0]) for c in runner.done}
    assert found == {
        "passes": ("passed", ""),
        "breaks": ("failed", "ZeroDivisionError: by zero"),
        "explains": ("failed", "(config-x) wrong"),
        "skips": ("skipped", "not here"),
        "last": ("skipped", "breaks did not pass"),
    }


def test_a_check_that_takes_the_process_down_is_named_in_the_file():
    states = []
    _runner.Runner(states.append).run(CASES[:2], "any", 7)
    assert [[c.status for c in state] for state in states] == [
        ["running"],
        ["passed"],
        ["passed", "running"],
        ["passed", "failed"],
    ]


def test_an_interrupt_is_no_failed_check():
    def stop(subject):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _runner.Runner(lambda checks: None).run([_runner.Case("s", "s", stop)], "any", 7)


@pytest.mark.parametrize(("failing", "code"), [(False, 0), (True, 1)])
def test_without_tensorrt_it_says_what_is_missing_and_tests_the_rest(
    exports, tmp_path, capsys, monkeypatch, failing, code
):
    monkeypatch.setattr(_common, "CASES", CASES[:2] if failing else _common.CASES[:4])
    monkeypatch.setattr(_common, "COMPONENTS", ("text_encoder",))
    file = tmp_path / "self-test.json"
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor", "--self-test", "--out", str(file)])
    assert (ended.value.code or 0) == code
    shown = capsys.readouterr().out
    assert "pip install tensorrt" in shown
    assert str(file) in shown
    result = selftest.SelfTest.model_validate_json(file.read_text())
    by_backend = {b: {c.status for c in result.checks if c.backend == b} for b in selftest.BACKENDS}
    assert by_backend["tensorrt"] == {"skipped"}
    assert by_backend["onnxruntime"] == ({"passed", "failed"} if failing else {"passed"})
