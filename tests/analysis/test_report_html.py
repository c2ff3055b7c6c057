"""The page: self-contained, safe against what stands in files, complete, and quick for a large engine."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
import time
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from sdtrt import registry
from sdtrt.analysis import render
from sdtrt.plan import KINDS, Layer

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


@pytest.fixture
def source(plans, manifest) -> str:
    return render(plans, manifest)


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
    assert re.search(r"script-src( 'sha256-[A-Za-z0-9+/=]{44}'){2}$", policy)
    assert len(page.data["script"]) == 3
    assert not [key for _, found in page.tags for key in found if key.startswith("on")]


def test_hostile_names_are_shown_not_obeyed(source, page, hostile):
    markup = source.replace(page.data["script"][1], "")
    assert hostile not in markup
    assert html.escape(hostile) in markup
    assert hostile in page.texts, "as a layer"
    assert f"Engine report: models/{hostile}" in page.texts, "as a model"
    assert json.loads(page.data["script"][0]).keys() == set(registry.names("sdtrt.analysis.plots"))


def test_inlines_plotly_once(source):
    assert source.count("plotly.js v") == 1
    assert 4e6 < len(source) < 8e6


def test_shows_every_figure(page):
    text = "\n".join(page.texts)
    for figure in ("4 ms", "1,720 MB", "5.25 GFLOP", "1,312 GFLOP/s", "96.88 % of time", "0.125 ms, 2 layers"):
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
    assert "not recorded" in Page(render(plans)).texts
    assert "Engine report: no engines" in Page(render([])).texts


def test_is_the_same_each_time(plans, manifest, source):
    assert render(plans, manifest) == source


def test_three_thousand_layers(unet):
    layers = tuple(
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
    )
    start = time.perf_counter()
    source = render([unet.model_copy(update={"layers": layers})])
    assert time.perf_counter() - start < 8
    assert len(source.encode()) < 12e6


def test_needs_no_heavy_package():
    code = f"""
import sys
for name in {HEAVY!r}:
    sys.modules[name] = None  # an import of it raises
from sdtrt.analysis import render, to_csv, to_json, to_markdown
from sdtrt.plan import Layer, Plan
layers = (Layer(name="a", kind="conv", op="Conv", times_ms=(1.0,)),)
facts = dict.fromkeys(("component", "backend", "backend_version", "device", "precision"), "x")
plan = Plan(**facts, sizes={{}}, layers=layers)
for write in (render, to_csv, to_json, to_markdown):
    assert write([plan])
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
