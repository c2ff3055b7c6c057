"""`sdtrt analyze` and `sdtrt compare` as a person and a build server meet them."""

from __future__ import annotations

import csv
import json
import re
from xml.etree import ElementTree as ET

import pytest

from sdtrt import cli
from sdtrt.cli.plan_sources import parse_onnx, parse_shapes
from sdtrt.errors import ConfigError
from sdtrt.plan.image_timing import EngineCalls, ImageRun
from sdtrt.plan.layers import Layer, Plan, TensorInfo

HOSTILE = "[bold]x[/] \x1b[31m=1+1</script><img src=x>"


@pytest.fixture
def sdtrt(monkeypatch, capsys, tmp_path):
    """run(*arguments) -> (exit code, standard output, standard error), without a traceback, in an empty folder."""
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            cli.main([str(a) for a in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return caught.value.code or 0, captured.out, captured.err

    return run


def engine(factor=1.0, component="unet", runs=10, fused=False):
    """An engine of three layers; `factor` stretches the second, `fused` joins it with the third."""
    x = TensorInfo(name="x", shape=(2, 8, 64, 64), dtype="float32")
    block = "down_blocks.0.attentions.0.transformer_blocks.0"

    def layer(name, kind, ms, **more):
        noise = [0.99, 1.0, 1.01, 1.0, 0.995, 1.005, 1.0, 0.99, 1.01, 1.0][:runs]
        return Layer(name=name, kind=kind, op=kind, times_ms=tuple(ms * n for n in noise), precision="float32", **more)

    y, z = (TensorInfo(name=n, shape=(2, 8, 64, 64), dtype="float32") for n in "yz")
    layers = (
        layer("conv_in", "conv", 2.0, nodes=("/conv_in/Conv",), module="conv_in", inputs=(x,), outputs=(y,)),
        layer("to_q", "gemm", 1.0 * factor, nodes=("q",), module=f"{block}.attn1.to_q", inputs=(y,), outputs=(z,)),
        layer(HOSTILE, "pointwise", 0.5, nodes=("a",), module=f"{block}.norm1", inputs=(z,)),
    )
    if fused:
        layers = (layers[0], layers[1].model_copy(update={"nodes": ("q", "a")}))
    return Plan(
        component=component,
        backend="fake",
        backend_version="1",
        device=None,
        precision="fp32",
        layers=layers,
        runs=runs,
    )


@pytest.fixture
def saved(tmp_path):
    """save(plan, name) -> path of its plan.json."""

    def save(plan, name="a"):
        path = tmp_path / name / "plan.json"
        path.parent.mkdir(parents=True)
        plan.save(path)
        return path

    return save


def test_writes_a_page_where_no_file_is_asked_for(sdtrt, saved, tmp_path):
    code, out, _ = sdtrt("analyze", saved(engine()))
    assert code == 0
    assert [p.name for p in (tmp_path / "work").iterdir()] == ["report.html"]
    assert "report.html" in out


def test_writes_every_kind_of_file_at_once(sdtrt, saved, tmp_path):
    work = tmp_path / "work"
    files = ("--out", "r.html", "--json", "deep/r", "--csv", "r.csv", "--md", "r.txt", "--xlsx", "r.xlsx")
    code, out, _ = sdtrt("analyze", saved(engine()), *files)
    assert code == 0
    assert "<html" in (work / "r.html").read_text()
    assert len(json.loads((work / "deep" / "r").read_text())["layers"]) == 3
    assert len(list(csv.DictReader((work / "r.csv").read_text().splitlines()))) == 3
    assert (work / "r.txt").read_text().startswith("# Engine report")
    assert (work / "r.xlsx").read_bytes().startswith(b"PK")
    assert all(name in out for name in ("r.html", "deep/r", "r.csv", "r.txt", "r.xlsx"))
    assert not [p for p in work.rglob("*") if ".tmp" in p.name]


def test_several_sources_are_one_report(sdtrt, saved, tmp_path):
    code, out, _ = sdtrt("analyze", saved(engine()), saved(engine(component="vae_decoder"), "b"), "--json", "r.json")
    assert code == 0
    data = json.loads((tmp_path / "work" / "r.json").read_text())
    assert [c["component"] for c in data["components"]] == ["unet", "vae_decoder"]
    assert "vae_decoder" in out


def test_only_the_named_engines_are_shown(sdtrt, saved):
    paths = saved(engine()), saved(engine(component="vae_decoder"), "b")
    code, out, _ = sdtrt("analyze", *paths, "--component", "vae_decoder", "--md", "r.md")
    assert code == 0
    assert "unet" not in out
    code, _, err = sdtrt("analyze", *paths, "--component", "clip")
    assert code == 1
    assert "unet, vae_decoder" in err


def test_the_summary_fits_80_columns_and_holds_no_escapes_of_names(sdtrt, saved):
    long = engine(component="a_component_with_a_very_long_name_indeed")
    code, out, _ = sdtrt("analyze", saved(long), "--md", "r.md")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "\x1b[31m" not in out
    assert "Slowest modules" in out
    assert "conv_in" in out


def test_a_timed_image_gives_times_per_image(sdtrt, saved, tmp_path):
    image = ImageRun(
        steps=4, images=1, height=64, width=64, wall_ms=40, engines={"unet": EngineCalls(count=4, total_ms=14)}
    )
    image.save(tmp_path / "image.json")
    code, out, _ = sdtrt("analyze", saved(engine()), "--run", tmp_path / "image.json", "--json", "r.json")
    assert code == 0
    assert "One image: 40 ms (recorded, 4 steps)" in out
    assert re.search(r"conv_in\s+8\s+2\s+unet", out), "2 ms in each of 4 calls"


def test_says_what_could_not_be_read(sdtrt, tmp_path):
    (tmp_path / "unet.graph.json").write_text('{"Layers": ["conv", "relu"], "Bindings": []}')
    code, out, err = sdtrt("analyze", tmp_path / "unet.graph.json", "--json", "r.json")
    assert (code, err) == (0, "")
    assert "--profilingVerbosity=detailed" in " ".join(out.split())


def test_draws_the_engine_and_parts_of_it(sdtrt, saved, tmp_path):
    path = saved(engine())
    wanted = {
        ("--color", "precision"): 3,
        ("--module-depth", 1): 2,
        ("--around", "conv_in", "--radius", 1): 2,
        ("--around", 0, "--radius", 0): 1,
        ("--query", "TO_.", "--radius", 0): 1,
    }
    for options, nodes in wanted.items():
        code, out, err = sdtrt("analyze", path, "--graph", "g.dot", *options)
        assert (code, err) == (0, "")
        assert "g.dot" in out
        text = (tmp_path / "work" / "g.dot").read_text()
        assert len(re.findall(r"^\s*(?:\")?l\d+(?:\")? \[", text, re.M)) == nodes, options
    assert not (tmp_path / "work" / "report.html").exists()


def test_writes_a_graph_for_netron(sdtrt, saved, tmp_path):
    onnx = pytest.importorskip("onnx")
    code, _, err = sdtrt("analyze", saved(engine()), "--netron", "unet.onnx")
    assert (code, err) == (0, "")
    assert len(onnx.load(tmp_path / "work" / "unet.onnx").graph.node) == 3


def test_a_finding_of_a_severity_fails_after_the_reports_are_written(sdtrt, saved, tmp_path, monkeypatch):
    from sdtrt.analysis import Analysis
    from sdtrt.analysis.findings import Finding

    found = (Finding("a_rule", "medium", "T", "M", "unet", ("to_q",), 1.0, 9.0, "A"),)
    monkeypatch.setattr(Analysis, "findings", found)
    path = saved(engine())
    for severity, expected in (("high", 0), ("medium", 1), ("low", 1)):
        code, out, _ = sdtrt("analyze", path, "--md", "r.md", "--junit", "r.xml", "--fail-on", severity)
        assert code == expected
        assert ("1 findings are of severity" in out) == bool(expected)
        suite = ET.parse(tmp_path / "work" / "r.xml").getroot()[0]  # noqa: S314 (what was written just now)
        assert suite.attrib["failures"] == str(expected)
        assert int(suite.attrib["tests"]) > 10, "every rule is a test"
        assert (tmp_path / "work" / "r.md").exists()
    assert sdtrt("analyze", path, "--md", "r.md")[0] == 0


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("sample=2x4x64x64", {"sample": (2, 4, 64, 64)}),
        ("a=1, b.c=2x3 ,t=scalar", {"a": (1,), "b.c": (2, 3), "t": ()}),
        ("x=y=2", {"x=y": (2,)}),
        (None, None),
    ],
)
def test_shapes_that_can_be_read(text, shapes):
    assert parse_shapes(text) == shapes


@pytest.mark.parametrize(
    "text",
    ["", "a", "a=", "=2", "a=2x", "a=2x0", "a=-1x3", "a=2,,b=3", "a=2,a=3", "a=2.5", "a=2X3", "a=٢", f"a={'9' * 99}"],
)
def test_shapes_that_make_no_sense_are_typed_errors(text):
    with pytest.raises(ConfigError) as caught:
        parse_shapes(text)
    assert caught.value.slug == "shapes-syntax"
    assert "sample=2x4x64x64" in caught.value.hint


def test_onnx_files_by_engine():
    assert parse_onnx(None) is None
    assert str(parse_onnx(["unet.onnx"])) == "unet.onnx"
    assert {k: str(v) for k, v in parse_onnx(["unet=u.onnx", "vae=v.onnx"]).items()} == {
        "unet": "u.onnx",
        "vae": "v.onnx",
    }
    with pytest.raises(ConfigError, match="names of their engines"):
        parse_onnx(["u.onnx", "v.onnx"])


MISTAKES = {
    "report of no kind": (("analyze", "A", "--out", "r.pdf"), ".html"),
    "picture of no kind": (("analyze", "A", "--graph", "g.gif"), ".svg .png .dot"),
    "a part without a picture": (("analyze", "A", "--query", "x"), "together with --graph"),
    "two parts": (("analyze", "A", "--graph", "g.svg", "--query", "x", "--around", "y"), "2 of them"),
    "graph of two engines": (("analyze", "A", "V", "--graph", "g.svg"), "--component unet or --component vae_decoder"),
    "no such layer": (("analyze", "A", "--graph", "g.dot", "--around", "nothing"), "no such layer"),
    "wrong shapes": (("analyze", "A", "--shapes", "sample=2;3"), "NAME=SIZE"),
    "a radius of nothing": (("analyze", "A", "--graph", "g.dot", "--radius", "1"), "--radius"),
    "no such file": (("analyze", "nowhere"), "nowhere"),
    "no such image": (("analyze", "A", "--run", "no.json"), "no.json"),
    "one side": (("compare", "A"), "a baseline and at least one candidate"),
    "no percentage": (("compare", "A", "B", "--max-regression", "0.03"), "below 1 with its sign"),
    "comparison of no kind": (("compare", "A", "B", "--out", "c.pdf"), ".html .md .json"),
    "checks without a limit": (("compare", "A", "B", "--junit", "j.xml"), "--max-regression"),
    "runs of other engines": (("compare", "A", "A,SHORT"), "not runs of one engine"),
    "missing run": (("compare", "A", "A,nowhere"), "nowhere"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_message_and_leave_no_file(sdtrt, saved, tmp_path, case):
    arguments, expected = MISTAKES[case]
    paths = {
        "A": saved(engine()),
        "B": saved(engine(), "b"),
        "V": saved(engine(component="vae_decoder"), "v"),
        "SHORT": saved(engine(fused=True), "s"),
    }
    named = [",".join(str(paths.get(part, part)) for part in argument.split(",")) for argument in arguments]
    code, _, err = sdtrt(*named)
    assert code == 1
    assert err.startswith("error (")
    assert expected in " ".join(err.split())
    assert not list((tmp_path / "work").iterdir())


def test_an_unknown_severity_is_a_usage_error(sdtrt, saved):
    assert sdtrt("analyze", saved(engine()), "--fail-on", "critical")[0] == 2


def test_compare_shows_what_changed_and_passes_without_a_limit(sdtrt, saved, tmp_path):
    paths = saved(engine()), saved(engine(2, fused=True), "b")
    code, out, _ = sdtrt("compare", *paths, "--out", "c.html", "-o", "c.md", "-o", "c.json")
    assert code == 0
    assert "a/plan.json → b/plan.json" in out
    assert "1.75x" in out or "0.88x" in out
    work = tmp_path / "work"
    assert "<html" in (work / "c.html").read_text()
    assert "2 layers became 1" in (work / "c.md").read_text()
    assert json.loads((work / "c.json").read_text())["checks"] == []
    assert max(map(len, out.splitlines())) <= 80
    assert "\x1b[31m" not in out


def test_the_gate_fails_on_a_slowdown_and_says_where(sdtrt, saved, tmp_path):
    a, b = saved(engine()), saved(engine(1.2), "b")
    options = ("--max-regression", "3%", "--by", "module", "--junit", "j.xml", "--out", "c.md")
    code, out, _ = sdtrt("compare", a, b, *options)
    assert code == 1
    assert "slower" in out
    assert "down_blocks.0.attentions.0" in out
    suite = ET.parse(tmp_path / "work" / "j.xml").getroot()[0]  # noqa: S314 (what was written just now)
    assert (suite.attrib["tests"], suite.attrib["failures"]) == ("3", "2")
    assert "**2 of 3 checks failed**" in (tmp_path / "work" / "c.md").read_text()
    assert sdtrt("compare", b, a, *options)[0] == 0, "faster passes"
    assert sdtrt("compare", a, a, *options)[0] == 0
    assert sdtrt("compare", a, b, "--max-regression", "10%")[0] == 0


def test_one_slow_candidate_of_two_is_enough(sdtrt, saved):
    a, b, c = saved(engine()), saved(engine(), "b"), saved(engine(2), "c")
    assert sdtrt("compare", a, b, "--max-regression", "3")[0] == 0
    code, out, _ = sdtrt("compare", a, b, c, "--max-regression", "3")
    assert code == 1
    assert "1 of 2 failed" in out


def test_single_figures_are_said_to_have_no_known_noise(sdtrt, saved):
    a, b = saved(engine(runs=1)), saved(engine(1.5, runs=1), "b")
    code, out, _ = sdtrt("compare", a, b, "--max-regression", "3%")
    assert code == 1
    assert "noise unknown" in " ".join(out.split())


def test_runs_of_one_engine_give_a_noise(sdtrt, saved, tmp_path):
    a = [saved(engine(f, runs=1), f"a{i}") for i, f in enumerate((1.0, 1.5, 0.5))]
    b = [saved(engine(f, runs=1), f"b{i}") for i, f in enumerate((1.2, 1.6, 0.6))]
    sides = (",".join(map(str, side)) for side in (a, b))
    code, out, _ = sdtrt("compare", *sides, "--max-regression", "3%", "--out", "c.json")
    assert code == 0, "the runs differ more than the sides"
    assert "(3 runs)" in out
    (check,) = json.loads((tmp_path / "work" / "c.json").read_text())["checks"]
    assert check["noise_ms"] > 0
