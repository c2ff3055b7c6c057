"""The page in a real browser: it draws, filters, sorts and changes its theme, and reports no error."""

from __future__ import annotations

import shutil

import pytest

from sdtrt import registry
from sdtrt.analysis import render

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-background-networking "
    "--disable-component-update --disable-sync --no-first-run --window-size=1280,900"
)


@pytest.fixture
def driver(tmp_path, plans, manifest):
    browser, service = shutil.which("chromium"), shutil.which("chromedriver")
    if not browser or not service:
        pytest.skip("chromium or chromedriver is not installed")
    page = tmp_path / "report.html"
    page.write_text(render(plans, manifest), encoding="utf-8")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(service))
    try:
        driver.set_script_timeout(60)
        driver.get(page.as_uri())
        wait_for(driver, "document.documentElement.dataset.ready === 'yes'")
        yield driver
    finally:
        driver.quit()


def wait_for(driver, condition):
    script = f"const done = arguments[0]; (function look() {{ {condition} ? done() : setTimeout(look, 20); }})();"
    driver.execute_async_script(script)


def rows(driver) -> list[list[str]]:
    script = "return [...document.querySelectorAll('#layers tbody tr')].filter((row) => row.offsetParent)"
    return driver.execute_script(f"{script}.map((row) => [...row.cells].map((cell) => cell.innerText))")


def click(driver, selector):
    driver.execute_script("document.querySelector(arguments[0]).click()", selector)


def color(driver, selector, name):
    return driver.execute_script(
        "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]", selector, name
    )


@pytest.mark.slow
def test_the_page_in_chromium(driver, hostile):
    for name in registry.names("sdtrt.analysis.plots"):
        assert driver.execute_script("return document.querySelectorAll(`#${arguments[0]} .main-svg`).length", name)
    assert driver.execute_script("return document.images.length") == 0
    assert driver.execute_script("return document.querySelectorAll('.chart a, .chart [onerror]').length") == 0
    assert hostile[-24:] in driver.execute_script("return document.getElementById('top_layers').textContent")
    assert driver.execute_script("return performance.getEntriesByType('resource').length") == 0

    everything = rows(driver)
    assert len(everything) == 14
    assert everything[0][1].startswith("/conv_in/Conv")
    script = "const f = document.getElementById('filter'); f.value = arguments[0]; f.dispatchEvent(new Event('input'))"
    driver.execute_script(script, "unet MATMUL")
    assert [row[1].split("\n")[0] for row in rows(driver)] == ["to_q"]
    assert driver.execute_script("return document.getElementById('shown').textContent") == "1 of 14 rows"
    driver.execute_script(script, "")
    assert rows(driver) == everything

    time_column = "#layers th:nth-child(4)"
    measured = ["0.125", "0.125", "0.250", "0.500", "1.000", "2.000"]
    for order, expected in (("ascending", measured), ("descending", measured[::-1])):
        click(driver, f"{time_column} button")
        assert [row[3] for row in rows(driver)] == expected + ["unknown"] * 8, "unknown is last in both directions"
        assert driver.find_element("css selector", time_column).get_attribute("aria-sort") == order
    driver.find_element("css selector", "#layers th:nth-child(2) button").send_keys("\n")
    names = [row[1].split("\n")[0] for row in rows(driver)]
    assert names.index("attn") < names.index("norm|1") < names.index("Reformat 1") < names.index("to_q")
    assert len(driver.find_elements("css selector", "#layers th[aria-sort]")) == 1

    before = color(driver, "body", "backgroundColor"), color(driver, "#top_layers .xtick text", "fill")
    click(driver, "#theme")
    wait_for(driver, f"getComputedStyle(document.querySelector('#top_layers .xtick text')).fill !== '{before[1]}'")
    assert color(driver, "body", "backgroundColor") != before[0]
    click(driver, "#theme")
    wait_for(driver, f"getComputedStyle(document.querySelector('#top_layers .xtick text')).fill === '{before[1]}'")
    assert color(driver, "body", "backgroundColor") == before[0]

    driver.set_window_size(500, 900)
    wait_for(driver, "document.querySelector('#top_layers .main-svg').clientWidth < 500")
    assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    assert driver.get_log("browser") == []
