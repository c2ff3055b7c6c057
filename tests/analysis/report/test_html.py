"""The page: self-contained, safe against what stands in files, complete, and quick for a large engine."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from work import calls

from sdtrt import registry
from sdtrt.analysis.report.html import render
from sdtrt.analysis.report.layer_data import layer_details
from sdtrt.analysis.report.overview import tiles
from sdtrt.analysis.session import Analysis
from sdtrt.plan.layers import KINDS, Layer

HEAVY = ("torch", "tensorrt", "onnx", "onnxruntime", "diffusers", "transformers", "onnx_graphsurgeon", "polygraphy")


class Page(HTMLParser):
    """Tags with their attributes, and the text outside scripts and styles."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.data: dict[str, list[str]] = {"script": [], "style": []}
        self.inside = ""
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag
        if tag in self.data:
            self.data[tag].append("")

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside in self.data:
            self.data[self.inside][-1] += data
        elif data.strip():
            self.texts.append(data.strip())

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def text_of(page, name):
    scripts = zip(page.all("script"), page.data["script"], strict=True)
    return next(text for found, text in scripts if found.get("id") == name)


def data(page, name):
    return json.loads(text_of(page, name))


RENDERED: dict[str, str] = {}


@pytest.fixture
def source(analysis) -> str:
    if "page" not in RENDERED:
        RENDERED["page"] = render(analysis)
    return RENDERED["page"]


@pytest.fixture
def page(source) -> Page:
    return Page(source)


def test_asks_nothing_of_a_network(page):
    links = [value for _, found in page.tags for key, value in found.items() if key in ("src", "href", "action")]
    assert links
    assert all(link.startswith("#") for link in links)
    assert not {name for name, _ in page.tags} & {"link", "img", "iframe", "object", "embed", "base", "form"}
    assert not re.search(r"url\(|@import", page.data["style"][0])


def test_lets_only_its_own_scripts_run(page):
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert "default-src 'none'" in policy
    allowed = re.search(r"script-src ([^;]*)$", policy)[1].split()
    kinds = [found.get("type") for found in page.all("script")]
    running = [text for text, kind in zip(page.data["script"], kinds, strict=True) if kind is None]
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in running]
    assert allowed == [f"'sha256-{digest}'" for digest in digests]
    assert set(kinds) == {None, "application/json"}
    assert not [key for _, found in page.tags for key in found if key.startswith("on")]


def test_hostile_names_are_shown_not_obeyed(page, source, hostile):
    markup = re.sub(r"<script.*?</script>", "", source, flags=re.DOTALL)
    assert hostile not in source
    assert html.escape(hostile) in markup
    assert f"Engine report: models/{hostile}" in page.texts, "as a model"
    assert hostile in page.texts, "as a machine"
    names = next(c["values"] for c in data(page, "data-table")["columns"] if c["name"] == "name")
    assert hostile in names, "as a layer"


def test_hostile_metadata_and_notes_are_shown_not_obeyed(detailed, hostile):
    source = render(Analysis((detailed,)))
    assert hostile not in source
    page = Page(source)
    assert hostile in page.texts
    assert f"1 layer was left out: {hostile}" in page.texts
    assert dict(data(page, "data-details")[3]["attributes"])["Note"] == hostile


def test_draws_every_plot_for_its_scope(page, plans):
    for name in registry.names("sdtrt.analysis.plots"):
        scope = getattr(registry.load("sdtrt.analysis.plots", name), "SCOPE", "engine")
        for part in ["all"] if scope == "all" else range(len(plans)):
            assert data(page, f"figure-{name}-{part}")["layout"]["height"] > 0


def test_data_holds_no_number_that_json_does_not_know(page):
    def refuse(constant):
        raise ValueError(constant)

    ids = [found["id"] for found in page.all("script") if found.get("type")]
    assert {"data-page", "data-table", "data-details", "data-graph-0", "data-graph-1"} <= set(ids)
    for name in ids:
        json.loads(text_of(page, name), parse_constant=refuse)


def test_the_table_has_all_layers_and_calls_nothing_zero_that_is_not_known(page, plans):
    table = data(page, "data-table")
    columns = {column["name"]: column for column in table["columns"]}
    assert table["count"] == sum(len(plan.layers) for plan in plans)
    assert all(len(column["values"]) == table["count"] for column in columns.values())
    assert columns["number"]["values"] == [*range(1, 8), *range(1, 8)]
    assert columns["time_ms"]["values"][-7:] == [2, 1, 0.5, 0.25, 0.125, 0.125, None]
    assert columns["flops"]["values"][7] == 4
    assert columns["tflops_per_s"]["values"][0] is None


def test_a_plot_that_shows_nothing_is_named_once_with_the_reason(untimed):
    page = Page(render(Analysis((untimed,))))
    assert not any(found.get("id") == "plot-top_layers" for found in page.all("div"))
    assert any(text.startswith("No layer was timed. Not drawn: Layer time by module, ") for text in page.texts)


def test_the_budget_is_labeled_as_measured_or_assumed(plans, image_run):
    assert "measured" in Page(render(Analysis(tuple(plans), run=image_run))).texts
    assert "assumed" in Page(render(Analysis(tuple(plans)))).texts


def test_the_first_figure_is_that_of_one_image_where_a_call_made_several(plans, image_run):
    first = tiles(Analysis(tuple(plans), run=image_run.model_copy(update={"images": 8})))[0]
    assert (first.label, first.value, first.note) == ("One image", "12.5 ms", "20 steps, measured, 8 at once")


def test_says_what_an_engine_that_is_faster_would_give(plans, image_run):
    texts = Page(render(Analysis(tuple(plans), run=image_run))).texts
    assert "10 % less time, the image would take 91 ms" in texts


def test_findings_come_with_their_cost_and_their_rule(detailed):
    analysis = Analysis((detailed,))
    page = Page(render(analysis))
    assert analysis.findings
    for finding in analysis.findings:
        assert finding.title in page.texts
        assert f"The rule {finding.rule}" in page.texts
    assert sum("show-layers" in (found.get("class") or "") for found in page.all("button")) == len(analysis.findings)


def test_details_of_many_layers_are_cut_and_say_so(unet):
    talk = {f"key {i}": "v" * 100 for i in range(30)}
    layers = tuple(unet.layers[0].model_copy(update={"name": f"n{i}", "attributes": talk}) for i in range(2000))
    details = layer_details([unet.model_copy(update={"layers": layers})])
    assert len(details[0]["attributes"]) + details[0]["moreAttributes"] == 30
    assert 0 < details[0]["moreAttributes"] < 30
    assert len(json.dumps(details)) < 4e6


def test_a_finding_whose_cost_is_not_known_is_shown(untimed):
    analysis = Analysis((untimed,))
    assert {finding.cost_ms for finding in analysis.findings} == {None}
    assert analysis.findings[0].title in Page(render(analysis)).texts


def test_huge_texts_are_cut(unet, untimed):
    long = unet.layers[0].model_copy(
        update={"name": "n" * 10**6, "kernel": "k" * 10**6, "attributes": {"a": "b" * 10**6}}
    )
    source = render(Analysis((unet.model_copy(update={"layers": (long,), "notes": ("x" * 10**6,)}),)))
    assert len(source) < len(render(Analysis((unet,)))) + 50_000


def test_inlines_plotly_once(source):
    assert source.count("plotly.js v") == 1
    assert 4e6 < len(source) < 8e6


def test_shows_every_figure(page):
    text = "\n".join(page.texts)
    for figure in (
        "4 ms",
        "1,720 MB",
        "5.25 GFLOP",
        "1,312 GFLOP/s",
        "96.88 % of time",
        "0.125 ms, 2 layers",
        "0.125 ms, 3.125 %, 2 layers",
    ):
        assert figure in text
    for fact in ("fake 1.0", "NVIDIA H200", "B=1 H=512 W=512 T=77", "2026-01-02T03:04:05+00:00", "8,000,000,000"):
        assert fact in text
    assert "max_abs_error 0.00125" in text
    assert "psnr_db 41.5" in text
    assert "unknown" in text


def test_headings_are_in_order_and_landmarks_are_there(page):
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert {"header", "nav", "main", "footer"} <= {tag for tag, _ in page.tags}
    ids = [found["id"] for _, found in page.tags if "id" in found]
    assert len(ids) == len(set(ids))
    named = [found.get("aria-labelledby") or found.get("for") for _, found in page.tags]
    assert set(filter(None, named)) <= set(ids)


def test_a_plan_without_a_bundle_and_no_plan_at_all(plans):
    assert "not recorded" in Page(render(Analysis(tuple(plans)))).texts
    assert "Engine report: no engines" in Page(render(Analysis(()))).texts


def test_is_the_same_each_time(plans, manifest, source):
    assert render(Analysis(tuple(plans), manifest)) == source


def test_a_page_of_three_thousand_layers_takes_ten_times_the_work_of_three_hundred(unet):
    layers = [
        Layer(
            name=f"/block.{i // 60}/attentions.{i // 12 % 5}/layer.{i % 12}/MatMul",
            kind=KINDS[i % len(KINDS)],
            op="MatMul",
            kernel=f"sm90_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize128x128x64_{i}",
            module=f"block.{i // 60}.attentions.{i // 12 % 5}.layer.{i % 12}",
            times_ms=(1 + i % 7,) * 20,
            flops=i,
            bytes_moved=i,
        )
        for i in range(3000)
    ]

    def page(count):
        return render(Analysis((unet.model_copy(update={"layers": tuple(layers[:count])}),)))

    assert len(page(3000).encode()) < 12e6
    assert calls(lambda: page(3000)) < 12 * calls(lambda: page(300))


def test_needs_no_heavy_package():
    code = f"""
import sys
for name in {HEAVY!r}:
    sys.modules[name] = None  # an import of it raises
from sdtrt.analysis.report.layer_data import layer_details
from sdtrt.analysis.report.html import render
from sdtrt.analysis.session import Analysis
from sdtrt.plan.layers import Layer, NodeCost, Plan
layers = (Layer(name="a", kind="conv", op="Conv", times_ms=(1.0,), nodes=("n",)),)
nodes = (NodeCost(name="n", op="Conv", kind="conv", module="", flops=1, bytes_moved=1, weight_bytes=0),)
facts = dict.fromkeys(("component", "backend", "backend_version", "device", "precision"), "x")
assert render(Analysis((Plan(**facts, layers=layers, nodes=nodes),)))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
