"""The engine graph in a real browser, on a page of its own: it opens small, expands, finds and obeys the keys."""

from __future__ import annotations

import json

import pytest

from sdtrt.analysis.colors import KIND_COLORS
from sdtrt.analysis.graph.data import graph_data
from sdtrt.analysis.report.template import asset
from sdtrt.analysis.session import Analysis
from sdtrt.plan.layers import KINDS, Layer, Plan, TensorInfo

Keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
Actions = pytest.importorskip("selenium.webdriver.common.action_chains").ActionChains

SCRIPTS = ("graph_parts", "graph_layout", "graph_model", "graph_details", "graph_controls", "graph")
HOSTILE = "</script><img src=x onerror=alert(1)>"


def layer(number, module, reads, **more):
    tensors = [TensorInfo(name=f"t{read}", shape=(2, 320, 64, 64), dtype="float16") for read in reads]
    more = {"kind": KINDS[number % 9], "op": f"Op{number % 9}", "times_ms": (0.01 * (number % 17 + 1),), **more}
    output = TensorInfo(name=f"t{number}", shape=(2, 320, 64, 64), dtype="float16")
    name = more.pop("name", f"/{module.replace('.', '/')}/layer_{number}")
    precision = ("float16", "float32")[number % 2]
    return Layer(name=name, module=module, inputs=tuple(tensors), outputs=(output,), precision=precision, **more)


def unet(count: int) -> Plan:
    """Down, middle and up with skips between them; every block has four parts of two modules each."""
    layers, blocks = [], [f"{side}_blocks.{n}" for side in ("down", "up") for n in range(6)]
    size = count // len(blocks)
    for number in range(count):
        block, inside = min(number // size, len(blocks) - 1), number % size
        part, module = inside * 4 // size, ("attn1", "attn2")[inside * 8 // size % 2]
        reads = [number - 1] + [number - 5] * (inside % 4 == 0 and number > 5)
        mirror = count - number
        reads += [mirror] * (inside == 1 and 0 < mirror < number)
        layers.append(layer(number, f"{blocks[block]}.attentions.{part}.transformer_blocks.0.{module}", reads))
    layers.append(layer(count, "conv_out", [count - 1], name=HOSTILE, kernel=HOSTILE, nodes=(HOSTILE,)))
    about = {"backend": "b", "backend_version": None, "device": None, "precision": None}
    return Plan(component="unet", layers=tuple(layers), **about)


@pytest.fixture
def show(driver, tmp_path):
    """Open a page with the graph of some plans; afterwards nothing may have been complained about."""

    def show(*plans: Plan):
        scripts = "\n".join(asset(f"{name}.js") for name in SCRIPTS)
        data = json.dumps(graph_data(Analysis(plans))).replace("<", "\\u003c")
        colors = json.dumps(
            {"kindColors": KIND_COLORS, "precisionColors": {"float16": "#009e73", "float32": "#d55e00"}}
        )
        page = tmp_path / "graph.html"
        page.write_text(
            f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>graph</title><link rel="icon" href="data:,">
            <style>{asset("graph.css")}</style><div id="graph"></div>
            <script id="data" type="application/json">{data}</script><script>{scripts}</script><script>
            window.api = EngineGraph.mount(document.getElementById("graph"),
              JSON.parse(document.getElementById("data").textContent), {colors});</script></html>""",
            encoding="utf-8",
        )
        driver.get(page.as_uri())
        return driver

    yield show
    assert driver.get_log("browser") == []


def labels(driver) -> list[str]:
    return driver.execute_script(
        "return [...document.querySelectorAll('.eg-box .eg-title')].map((text) => text.textContent)"
    )


def box(driver, start):
    """The box whose spoken label starts with `start`."""
    return driver.find_element("css selector", f".eg-box[aria-label^='{start}']")


def press(driver, *keys):
    for key in keys:
        driver.switch_to.active_element.send_keys(key)


def focused(driver) -> str:
    return driver.execute_script("return document.activeElement.getAttribute('aria-label') ?? ''")


def details(driver) -> str:
    return driver.find_element("css selector", ".eg-side").text


def overlaps(driver) -> list[list[str]]:
    """Pairs of closed boxes that lie on each other."""
    return driver.execute_script("""
      const boxes = [...document.querySelectorAll(".eg-box:not(.eg-open) .eg-frame")].map((f) =>
        [f.parentNode.dataset.id, f.getBoundingClientRect()]);
      return boxes.flatMap(([a, p], i) => boxes.slice(i + 1).filter(([, q]) =>
        p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 1 && q.top < p.bottom - 1)
        .map(([b]) => [a, b]));""")


@pytest.mark.slow
def test_the_graph_opens_at_modules_expands_and_collapses(show):
    driver = show(unet(480))
    first = labels(driver)
    assert len(first) == 13
    assert first[0] == "▸ down_blocks.0"
    assert driver.find_elements("css selector", ".eg-edge")
    assert overlaps(driver) == []

    box(driver, "down_blocks.1").click()
    assert box(driver, "down_blocks.1").get_attribute("aria-expanded") == "true"
    assert len(labels(driver)) == 17
    driver.execute_script("api.expand('g2')")
    deeper = len(labels(driver))
    assert deeper > 17
    assert overlaps(driver) == []

    heads = driver.find_elements("css selector", ".eg-head")
    Actions(driver).move_to_element_with_offset(heads[0], 0, 0).click().perform()
    assert len(labels(driver)) < deeper
    driver.execute_script("api.collapseAll()")
    assert labels(driver) == first


@pytest.mark.slow
def test_boxes_show_figures_and_hostile_text_is_only_text(show):
    driver = show(unet(480))
    assert "480" not in details(driver)
    assert "Layers\n481" in details(driver)
    driver.execute_script("api.find('onerror')")
    assert HOSTILE in details(driver)
    assert "Kernel\n" + HOSTILE in details(driver)
    assert driver.execute_script("return document.images.length") == 0
    total = 480 // 12
    assert f"{total} layers" in driver.find_element("css selector", ".eg-canvas").text
    tip = driver.execute_script("return document.querySelector('.eg-hit title').textContent")
    assert tip.startswith(("1 tensor, 5.24 MB", "2 tensors, 10.5 MB"))


@pytest.mark.slow
def test_colors_switch(show):
    driver = show(unet(480))

    def fills():
        return driver.execute_script(
            "return [...document.querySelectorAll('.eg-tint')].map((r) => r.getAttribute('fill'))"
        )

    seen = {}
    for mode in ("precision", "time", "kind"):
        button = driver.find_element("css selector", f"[data-mode={mode}]")
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
        assert len(driver.find_elements("css selector", "[data-mode][aria-pressed=true]")) == 1
        seen[mode] = set(fills())
    assert seen["precision"] == {"#009e73", "#d55e00"}
    assert len(seen["time"]) == 1
    assert seen["kind"] <= set(KIND_COLORS.values())
    assert "conv" in driver.find_element("css selector", ".eg-legend").text


@pytest.mark.slow
def test_search_opens_what_a_layer_is_in(show):
    driver = show(unet(480))
    field = driver.find_element("css selector", ".eg input")
    field.send_keys("layer_47", Keys.ENTER)
    assert "1 of 11" in driver.find_element("css selector", ".eg-bar").text
    assert "layer_47" in details(driver)
    crumbs = [step.text for step in driver.find_elements("css selector", ".eg-crumbs button")]
    assert crumbs[:2] == ["unet", "down_blocks.1"]
    assert crumbs[-1] == "layer_47"
    field.send_keys(Keys.ENTER)
    assert "2 of 11" in driver.find_element("css selector", ".eg-bar").text
    field.clear()
    field.send_keys("no such thing", Keys.ENTER)
    assert "nothing found" in driver.find_element("css selector", ".eg-bar").text
    driver.find_element("css selector", ".eg-crumbs button").click()
    assert len(labels(driver)) == 13, "the first crumb closes everything"
    inside = driver.execute_script("""api.find('layer_300'); const c = document.querySelector('.eg-canvas')
      .getBoundingClientRect(), b = document.querySelector('.eg-on .eg-frame').getBoundingClientRect();
      return c.left <= b.left && c.top <= b.top && b.right <= c.right && b.bottom <= c.bottom""")
    assert inside, "the hit is in view"


@pytest.mark.slow
def test_keys_move_open_and_close(show):
    driver = show(unet(480))
    assert len(driver.find_elements("css selector", ".eg-box[tabindex='0']")) == 1, "one stop for the tab key"
    driver.execute_script("document.querySelector('.eg-box[tabindex=\"0\"]').focus()")
    assert focused(driver).startswith("down_blocks.0")
    press(driver, Keys.ARROW_DOWN)
    assert focused(driver).startswith("down_blocks.1")
    press(driver, Keys.ENTER)
    assert len(labels(driver)) == 17
    assert focused(driver).startswith("down_blocks.1"), "the focus stays"
    press(driver, Keys.ARROW_DOWN)
    assert focused(driver).startswith("attentions.0")
    press(driver, Keys.ESCAPE)
    assert focused(driver).startswith("down_blocks.1")
    assert len(labels(driver)) == 13
    before = driver.execute_script("return document.querySelector('.eg-canvas > g').style.transform")
    press(driver, "+")
    zoomed = driver.execute_script("return document.querySelector('.eg-canvas > g').style.transform")
    assert zoomed != before
    press(driver, "0")
    assert driver.execute_script("return document.querySelector('.eg-canvas > g').style.transform") != zoomed


@pytest.mark.slow
def test_mouse_drags_and_the_wheel_zooms_after_a_click(show):
    driver = show(unet(480))
    canvas = driver.find_element("css selector", ".eg-canvas")

    def transform():
        return driver.execute_script("return document.querySelector('.eg-canvas > g').style.transform")

    def wheel():
        return driver.execute_script("""
          const e = new WheelEvent('wheel', {deltaY: -100, cancelable: true, bubbles: true});
          document.querySelector('.eg-canvas').dispatchEvent(e); return e.defaultPrevented""")

    start = transform()
    assert not wheel(), "the page scrolls until the graph was clicked"
    assert transform() == start
    Actions(driver).move_to_element_with_offset(canvas, -380, 250).click_and_hold().move_by_offset(
        60, -30
    ).release().perform()
    dragged = transform()
    assert dragged != start
    assert len(labels(driver)) == 13, "a drag opens nothing"
    Actions(driver).move_to_element_with_offset(canvas, -380, 250).click().perform()
    assert wheel()
    assert transform() != dragged


@pytest.mark.slow
def test_several_engines_and_themes(show):
    other = unet(48).model_copy(update={"component": "text_encoder"})
    driver = show(unet(480), other)
    driver.execute_script(
        "const s = document.querySelector('.eg select'); s.value = '1'; s.dispatchEvent(new Event('change'))"
    )
    assert driver.find_element("css selector", ".eg-crumbs").text == "text_encoder"
    assert "Layers\n49" in details(driver)
    look = "return getComputedStyle(document.querySelector('.eg-frame')).fill"
    light = driver.execute_script(look)
    driver.execute_script("api.setTheme(true)")
    assert driver.execute_script(look) != light


@pytest.mark.slow
def test_no_engine_and_no_layer_are_said_not_thrown(show):
    assert "no engine" in show().find_element("css selector", "#graph").text
    assert "Layers\n0" in details(show(unet(48).model_copy(update={"layers": ()})))


@pytest.mark.slow
@pytest.mark.parametrize("modules", [True, False])
def test_three_thousand_layers_open_group_by_group(show, modules):
    plan = unet(3000)
    if not modules:
        unknown = [each.model_copy(update={"module": None, "name": f"Op_{n}"}) for n, each in enumerate(plan.layers)]
        plan = plan.model_copy(update={"layers": tuple(unknown)})
    driver = show(plan)
    assert len(labels(driver)) <= 30
    driver.execute_script("""
      for (let group = 1; document.querySelectorAll(".eg-box").length < 300; group++) api.expand(`g${group}`);""")
    assert overlaps(driver) == []
    driver.execute_script("api.find('2999')")
    assert any("2999" in label for label in labels(driver))
