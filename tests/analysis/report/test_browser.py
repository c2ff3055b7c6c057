"""The page in a real browser: what it draws, how it answers, how quickly, and that it reports no error."""

from __future__ import annotations

import pytest

from sdtrt import registry
from sdtrt.analysis.report.html import render
from sdtrt.analysis.session import Analysis
from sdtrt.plan.layers import KINDS, Layer, TensorInfo

# Elements that one keystroke or click may make: rows in view have 750; the table of 3,000 layers has 60,000.
FEW_ELEMENTS = 1500
RENDERED: dict[str, str] = {}

pytestmark = pytest.mark.slow


def shape(*sizes):
    return " \N{MULTIPLICATION SIGN} ".join(sizes)


class Page:
    """An open report."""

    def __init__(self, driver):
        self.driver = driver

    def run(self, script, *values):
        return self.driver.execute_script(script, *values)

    def wait(self, condition):
        script = f"const done = arguments[0]; (function look() {{ {condition} ? done() : setTimeout(look, 20); }})();"
        self.driver.execute_async_script(script)

    def finish(self, promise):
        self.driver.execute_async_script(f"const done = arguments[0]; {promise}.then(() => done());")

    def click(self, selector):
        self.run("document.querySelector(arguments[0]).click()", selector)

    def press(self, selector, *keys):
        self.driver.find_element("css selector", selector).send_keys(*keys)

    def type(self, text):
        self.run("const f = sdtrt.find('filter'); f.value = arguments[0]; f.dispatchEvent(new Event('input'))", text)

    def choose(self, selector, value):
        find = "const s = document.querySelector(arguments[0]); s.value = arguments[1];"
        self.run(f"{find} s.dispatchEvent(new Event('change'))", selector, value)

    def text(self, selector):
        return self.run("return document.querySelector(arguments[0])?.innerText", selector)

    def column(self, name):
        script = """const heads = [...document.querySelectorAll('#grid th')];
            const at = heads.findIndex((th) => th.dataset.column === arguments[0]);
            return [...document.querySelectorAll('#grid tr[data-place]')].map((row) => row.cells[at].innerText)"""
        return self.run(script, name)

    def style(self, selector, name):
        return self.run("return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]", selector, name)

    def elements_made(self, script):
        """How many elements a script puts into the page, which is what an answer takes its time for."""
        return self.run(f"""
          const observer = new MutationObserver(() => 0);
          observer.observe(document, {{childList: true, subtree: true}});
          {script};
          const added = observer.takeRecords().flatMap((r) => [...r.addedNodes]).filter((n) => n.querySelectorAll);
          observer.disconnect();
          return added.reduce((sum, n) => sum + 1 + n.querySelectorAll("*").length, 0)""")


@pytest.fixture
def show(driver, tmp_path):
    """Opens a report, or that of an analysis, and afterwards looks for errors and for whatever was fetched."""

    def opened(source):
        file = tmp_path / "report.html"
        file.write_text(source if isinstance(source, str) else render(source), encoding="utf-8")
        driver.set_window_size(1280, 900)
        driver.get(file.as_uri())
        page = Page(driver)
        page.wait("document.documentElement.dataset.ready === 'yes'")
        return page

    driver.get_log("browser")
    yield opened
    assert driver.get_log("browser") == []
    assert driver.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")


@pytest.fixture
def page(show, analysis):
    if "page" not in RENDERED:
        RENDERED["page"] = render(analysis)
    return show(RENDERED["page"])


@pytest.fixture
def large(unet):
    def made(i):
        path = f"down_blocks.{i // 600}.attentions.{i // 120 % 5}.transformer_blocks.{i // 12 % 10}.attn1"
        tensor = TensorInfo(name=f"t{i}", shape=(2, 320, 64, 64), dtype="float16")
        return Layer(
            name=f"/{path.replace('.', '/')}/MatMul_{i}",
            kind=KINDS[i % len(KINDS)],
            op="MatMul",
            kernel=f"sm90_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize128x128x64_{i % 40}",
            precision="float16",
            module=path,
            inputs=(tensor,),
            outputs=(tensor.model_copy(update={"name": f"t{i + 1}"}),),
            nodes=(f"/{path}/MatMul_{i}", f"/{path}/Add_{i}"),
            times_ms=tuple(0.01 + (i * 7919 + k) % 1000 / 1000 for k in range(10)),
            flops=10**8 + i * 10**6,
            bytes_moved=10**6 + i * 1000,
            weight_bytes=i * 100,
            attributes={"TacticValue": f"0x{i:016x}", "StreamId": 0},
        )

    return Analysis((unet.model_copy(update={"layers": tuple(made(i) for i in range(3000))}),))


def test_every_chart_is_drawn_for_every_engine(page, plans):
    for index in range(len(plans)):
        page.finish(f"sdtrt.chooseEngine({index}).then(sdtrt.drawAll)")
        for name in registry.names("sdtrt.analysis.plots"):
            assert page.run("return document.querySelectorAll(`#plot-${arguments[0]} .main-svg`).length", name), name
    assert page.text("#plot-top_layers") == page.text("#plot-top_layers").replace("No layer was timed.", "")


def test_charts_away_from_the_view_wait(page):
    assert page.run("return document.querySelectorAll('.js-plotly-plot').length") < len(
        registry.names("sdtrt.analysis.plots")
    )
    page.run("sdtrt.find('plot-precision_pies').scrollIntoView()")
    page.wait("document.querySelector('#plot-precision_pies .main-svg')")


def test_hostile_names_do_nothing(page, hostile):
    page.finish("sdtrt.drawAll()")
    page.run("sdtrt.mountGraph()")
    for index in range(14):
        page.run("sdtrt.openLayer(arguments[0])", index)
    assert page.run("return document.images.length") == 0
    assert page.run("return document.querySelectorAll('.chart a, [onerror], main b a, #details a').length") == 0
    assert hostile[-24:] in page.run("return document.getElementById('plot-top_layers').textContent")


def test_the_filter_takes_words_without_words_and_figures(page):
    assert page.text("#shown") == "7 of 7 layers"
    page.type("CONV_IN")
    assert page.column("name") == ["/conv_in/Conv"]
    assert page.text("#shown") == "1 of 7 layers"
    page.type("attn1 -softmax -attention")
    assert page.column("name") == []
    page.type("ms>=0.5 -conv_in")
    assert page.column("name") == ["to_q", "attn"]
    page.type("<img")
    assert page.column("kind") == ["pointwise"]
    page.type("no such layer")
    assert page.text("#grid td.unknown") == "No layer matches."
    page.click("#clear")
    assert page.text("#shown") == "7 of 7 layers"


def test_a_kind_can_be_left_out(page):
    page.click(".chip[data-kind=conv]")
    assert "conv" not in page.column("kind")
    assert page.text("#shown") == "6 of 7 layers"
    page.click(".chip[data-kind=conv]")
    assert "conv" in page.column("kind")


def test_every_column_sorts_both_ways_and_unknown_stays_last(page):
    measured = ["0.125", "0.125", "0.25", "0.5", "1", "2"]
    for order, expected in (("ascending", measured), ("descending", measured[::-1])):
        page.click("#grid th[data-column=time_ms] button")
        assert page.column("time_ms") == [*expected, "unknown"]
        assert page.run("return document.querySelector('#grid [aria-sort]').ariaSort") == order
    page.press("#grid th[data-column=name] button", "\n")
    names = page.column("name")
    assert names.index("attn") < names.index("norm|1") < names.index("Reformat 1") < names.index("to_q")
    assert page.run("return document.querySelectorAll('#grid [aria-sort]').length") == 1
    assert page.run("return document.activeElement.textContent") == "Layer"


def test_columns_can_be_chosen(page):
    assert page.run("return !document.querySelector('#grid th[data-column=kernel]')")
    page.run("[...document.querySelectorAll('.choices label')].find((l) => l.textContent.trim() === 'Kernel').click()")
    assert "xmma" in page.column("kernel")


def test_the_keyboard_moves_in_the_table_and_opens_a_layer(show, detailed):
    page = show(Analysis((detailed,)))
    page.press("body", "/")
    assert page.run("return document.activeElement.id") == "filter"
    page.press("#grid", "\ue015", "\ue015", "\ue013")
    assert page.run("return document.querySelector('#grid tr.active').id") == "layer-1"
    assert page.run("return sdtrt.find('grid').getAttribute('aria-activedescendant')") == "layer-1"
    page.press("#grid", "\n")
    assert page.text("#details-title") == "to_q"
    text = page.text("#details-body")
    for part in (shape("2", "320", "64", "64"), "channels last, 8 wide", "5.243 MB", "float16", "1 GFLOP", "% of peak"):
        assert part in text
    page.click("#details-next")
    assert page.text("#details-title") == "attn"
    page.press("#details", "\ue00c")
    assert page.run("return !document.querySelector('dialog[open]')")


def test_details_say_what_is_unknown(show, detailed, hostile):
    page = show(Analysis((detailed,)))
    page.run("sdtrt.openLayer(3)")
    assert "0.25 ms, 0.25 to 0.25 ms in 1 run" in page.text("#details-body")
    assert "a\nb" in page.text("#details-body"), "its ONNX nodes"
    assert hostile in page.text("#details-body")
    page.run("sdtrt.openLayer(5)")
    assert shape("2", "?", "64", "64") in page.text("#details-body")
    page.run("sdtrt.openLayer(6)")
    assert page.text("#details-body").count("unknown") >= 10


def test_the_engine_chooser_changes_charts_table_and_graph(page):
    page.run("sdtrt.mountGraph()")
    page.run("sdtrt.find('plot-top_layers').scrollIntoView()")
    page.wait("document.querySelector('#plot-top_layers .main-svg')")
    assert page.text("#time .scope") == "unet"
    page.choose("#engine", "0")
    page.wait("document.querySelector('#plot-top_layers').textContent.includes('No layer was timed.')")
    assert page.text("#time .scope") == "text_encoder"
    assert set(page.column("time_ms")) == {"unknown"}
    page.choose("#table-engine", "")
    assert page.text("#shown") == "14 of 14 layers"


def test_a_click_on_a_bar_opens_its_layer(page):
    page.finish("sdtrt.drawAll()")
    page.run("""const chart = sdtrt.find('plot-top_layers');
        chart.emit('plotly_click', {points: [{data: chart.data[0], customdata: chart.data[0].customdata[0]}]})""")
    assert page.text("#details-title") == "/conv_in/Conv"


def test_a_finding_shows_its_layers_in_the_table(show, detailed):
    analysis = Analysis((detailed,))
    page = show(analysis)
    page.run("document.querySelector('.show-layers').click()")
    assert set(page.column("name")) == set(analysis.findings[0].layers)
    assert analysis.findings[0].title[:40] in page.text("#shown")
    page.click("#clear")
    assert page.text("#shown") == "7 of 7 layers"


def test_what_if_an_engine_were_faster(show, plans, image_run):
    page = show(Analysis(tuple(plans), run=image_run))
    page.run("const r = sdtrt.find('whatif-percent'); r.value = 50; r.dispatchEvent(new Event('input'))")
    assert page.text("#whatif-answer") == "50 % less time, the image would take 55 ms (45 % less)"
    page.choose("#whatif-stage", "4.0")
    assert "98 ms" in page.text("#whatif-answer")


def test_the_graph_mounts_and_expands(show, large):
    page = show(large)
    page.run("window.graph = sdtrt.mountGraph()")
    before = page.run("return Number(sdtrt.find('engine-graph').dataset.boxes)")
    assert before > 0
    page.run("""const closed = document.querySelector('#engine-graph [aria-expanded=false]');
        closed.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', bubbles: true}))""")
    assert page.run("return Number(sdtrt.find('engine-graph').dataset.boxes)") > before


def test_the_theme_changes_page_and_charts(page):
    page.finish("sdtrt.drawAll()")
    tick = "#plot-top_layers .xtick text"
    page.run("sdtrt.find('plot-top_layers').scrollIntoView()")
    before = page.style("body", "backgroundColor"), page.style(tick, "fill"), page.text("#theme")
    height = page.run("return document.documentElement.scrollHeight")
    page.click("#theme")
    page.wait(f"getComputedStyle(document.querySelector('{tick}')).fill !== '{before[1]}'")
    assert page.style("body", "backgroundColor") != before[0]
    assert page.run("return document.documentElement.scrollHeight") == height, "no chart changed its size"
    page.click("#theme")
    page.wait(f"getComputedStyle(document.querySelector('{tick}')).fill === '{before[1]}'")
    assert (page.style("body", "backgroundColor"), page.text("#theme")) == (before[0], before[2])


def test_a_narrow_screen_needs_no_sideways_scrolling(page, driver):
    page.finish("sdtrt.drawAll()")
    driver.set_window_size(500, 900)
    page.wait("document.querySelector('#plot-top_layers .main-svg').clientWidth < 500")
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")


def test_a_page_without_engines_opens(show):
    assert show(Analysis(())).text("h1") == "Engine report: no engines"


def test_three_thousand_layers_are_filtered_and_sorted_without_drawing_them(show, large):
    page = show(large)
    assert page.text("#shown") == "3,000 of 3,000 layers"
    assert page.run("return document.querySelectorAll('#grid tbody tr').length") < 80, (
        "rows out of view are no elements"
    )
    typed = "const f = sdtrt.find('filter'); f.value = '{}'; f.dispatchEvent(new Event('input'))"
    sort = "document.querySelector('#grid th[data-column={}] button').click()"
    made = {
        "filter": page.elements_made(typed.format("attentions.3 matmul ms>0.5")),
        "filter again": page.elements_made(typed.format("attentions.3")),
        "filter off": page.elements_made(typed.format("")),
        "sort texts": page.elements_made(sort.format("name")),
        "sort numbers": page.elements_made(sort.format("flops")),
        "details": page.elements_made("sdtrt.openLayer(1500)"),
        "chip": page.elements_made("document.querySelector('.chip').click()"),
    }
    assert {what: n for what, n in made.items() if n > FEW_ELEMENTS} == {}
    assert min(made["filter"], made["sort texts"]) > 0, "what is shown is drawn anew"
    page.press("#details", "\ue00c")
    page.run("sdtrt.find('grid-scroll').scrollTop = 1e6")
    page.wait("document.querySelector('#grid tr[aria-rowindex=\"2667\"]')")
    page.finish("sdtrt.drawAll()")
