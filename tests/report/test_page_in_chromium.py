"""The page as a reader meets it: in a real browser, without a network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bench.questions import QUESTIONS
from bench.report import page, results

BROWSER, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER),
    reason="needs Debian's chromium and chromium-driver: apt-get install chromium chromium-driver",
)
RESULTS = Path(__file__).parents[2] / "results"
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--window-size=1200,900",
)


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> Path:
    """The page of the committed results."""
    root = tmp_path_factory.mktemp("results")
    for folder in {path.parent for path in RESULTS.glob("*/*/rows.csv.gz")}:
        copy = root / folder.relative_to(RESULTS)
        copy.mkdir(parents=True)
        for file in folder.iterdir():
            if file.name in results.STORED:
                shutil.copy(file, copy)
        if (folder / "figures").exists():
            shutil.copytree(folder / "figures", copy / "figures")
    shutil.copy(RESULTS / "index.html", root)  # whose JavaScript is taken over
    written = page.write(root, [], QUESTIONS)
    assert written.problems == []
    return written.index


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator:
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options, Service(DRIVER))
    driver.set_script_timeout(120)
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, index):
    """The page at its top, as first opened, 1200 pixels wide and light."""
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    browser.get("about:blank")
    browser.get_log("performance")  # empties it
    browser.get(index.as_uri())
    yield browser
    assert [e for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []


def draw_all(browser) -> None:
    done = "drawAll().then(() => done(''), (error) => done(String(error)))"
    assert browser.execute_async_script(f"const done = arguments[0]; {done}") == ""


def shown_lines(browser, table: str) -> list[str]:
    """First cells of a table's visible lines."""
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0] + ' tbody tr:not([hidden])')]"
        ".map((line) => line.cells[0].textContent)",
        table,
    )


def element(browser, selector: str):
    return browser.find_element("css selector", selector)


def choose(browser, selector: str, value: str) -> None:
    browser.execute_script(
        "const e = document.querySelector(arguments[0]); e.value = arguments[1];"
        "e.dispatchEvent(new Event('change'))",
        selector,
        value,
    )


TABLE = "#mnist5k-cpu--headline details.table:nth-of-type(1)"
LONG = "#mnist5k-cpu--loss_noise details.table:nth-of-type(1)"
"""Of 12 lines or more, which can be searched."""


def test_the_console_does_report_errors(browser):
    browser.get("about:blank")
    browser.execute_script("setTimeout(() => { throw new Error('seen') })")
    assert any("seen" in entry["message"] for entry in browser.get_log("browser"))


def test_no_request_to_another_host(opened):
    draw_all(opened)
    events = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    asked = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert asked
    assert {urlsplit(url).scheme for url in asked} <= {"file", "data", "blob"}


def test_every_figure_is_drawn_and_has_an_alternative_text(opened):
    draw_all(opened)
    figures = opened.execute_script(
        "return [...document.querySelectorAll('figure')].map((figure) => {"
        "  const chart = figure.querySelector('.chart'), image = figure.querySelector('img');"
        "  const marks = figure.querySelectorAll('.chart svg [role=graphics-symbol]').length;"
        "  return chart"
        "    ? [marks > 0, chart.getAttribute('role'), chart.getAttribute('aria-label')]"
        "    : [image.naturalWidth > 0, 'img', image.alt];"
        "})"
    )
    assert len(figures) >= 6
    for drawn, role, alternative in figures:
        assert drawn, alternative
        assert role == "img"
        assert len(alternative) > 20


def test_charts_are_drawn_when_they_come_into_view(opened):
    count = "return document.querySelectorAll('.chart svg').length"
    before = opened.execute_script(count)
    chart = "document.querySelector('#mnist5k-cpu--loss_noise .chart')"
    opened.execute_script(f"{chart}.scrollIntoView()")
    wait(opened, f"{chart}.querySelector('svg')")
    assert opened.execute_script(count) > before
    assert opened.execute_script(count) < opened.execute_script(
        "return document.querySelectorAll('.chart').length"
    )


def wait(browser, condition: str) -> None:
    """Until a condition holds, for at most 20 seconds."""
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(browser, 20).until(lambda driver: driver.execute_script(f"return {condition}"))


def test_a_heading_sorts_its_table_by_value(opened):
    first = shown_lines(opened, TABLE)
    heading = element(opened, f"{TABLE} th:nth-child(2)")
    button = heading.find_element("tag name", "button")
    values = (
        f"return [...document.querySelectorAll('{TABLE} tbody td:nth-child(2)')]"
        ".map((cell) => cell.dataset.value).filter(Boolean).map(Number)"
    )
    opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()
    ascending = opened.execute_script(values)
    assert ascending == sorted(ascending)
    assert heading.get_attribute("aria-sort") == "ascending"
    button.click()
    assert opened.execute_script(values) == ascending[::-1]
    button.click()
    assert shown_lines(opened, TABLE) == first
    assert heading.get_attribute("aria-sort") == "none"


def test_lines_without_a_number_stay_last(opened):
    button = element(opened, f"{TABLE} th:nth-child(2) button")
    for _ in range(2):
        opened.execute_script("arguments[0].click()", button)
        assert shown_lines(opened, TABLE)[-1] == "autoencoder"


def test_words_filter_a_table(opened):
    every = shown_lines(opened, LONG)
    opened.execute_script("document.querySelector(arguments[0]).scrollIntoView()", LONG)
    element(opened, f"{LONG} .find").send_keys("flow best")
    assert shown_lines(opened, LONG) == ["flow"]
    assert element(opened, f"{LONG} .count").text == f"1 of {len(every)} lines"
    assert not opened.find_elements("css selector", f"{TABLE} .find")


def test_a_variant_leaves_tables_and_charts(opened):
    figure = "#mnist5k-cpu--headline .chart"
    draw_all(opened)
    marks = f"document.querySelectorAll('{figure} svg [role=graphics-symbol]').length"
    before = opened.execute_script(f"return {marks}")
    assert "flow" in shown_lines(opened, TABLE)
    opened.execute_script(
        "document.getElementById('mnist5k-cpu--headline').scrollIntoView();"
        "document.querySelector('input[name=variant][value=flow]').click()"
    )
    assert "flow" not in shown_lines(opened, TABLE)
    wait(opened, f"{marks} < {before}")
    every = element(opened, "#every-variant")
    assert every.is_displayed()
    opened.execute_script("arguments[0].click()", every)
    assert "flow" in shown_lines(opened, TABLE)
    # those further down wait until they come into view
    opened.execute_script(f"[...document.querySelectorAll('{figure}')].at(-1).scrollIntoView()")
    wait(opened, f"{marks} === {before}")


def test_a_chart_is_filtered_by_what_it_offers(opened):
    choices = opened.execute_script(
        "return [...document.querySelectorAll('figure.charted')].map((figure) => "
        "  [figure.closest('article').id, figure.querySelectorAll('.choices select').length])"
    )
    assert sum(number for _, number in choices) > 0
    draw_all(opened)
    select = "#mnist5k-cpu figure:has(.choices select) .choices select"
    marks = (
        f"document.querySelector('{select}').closest('figure')"
        ".querySelectorAll('svg [role=graphics-symbol]').length"
    )
    before = opened.execute_script(f"return {marks}")
    opened.execute_script(f"document.querySelector('{select}').scrollIntoView()")
    value = opened.execute_script(f"return document.querySelector('{select}').options[1].value")
    choose(opened, select, value)
    wait(opened, f"{marks} < {before} && {marks} > 0")


def test_the_data_set_is_chosen_and_the_question_kept(opened):
    assert element(opened, "#mnist5k-cpu").is_displayed()
    assert not element(opened, "#mnist-cpu").is_displayed()
    opened.execute_script("document.getElementById('mnist5k-cpu--loss_noise').scrollIntoView()")
    choose(opened, "#dataset", "mnist-cpu")
    assert element(opened, "#mnist-cpu").is_displayed()
    assert not element(opened, "#mnist5k-cpu").is_displayed()
    assert opened.current_url.endswith("#mnist-cpu--loss_noise")
    choose(opened, "#dataset", "")
    assert element(opened, "#mnist5k-cpu").is_displayed()


def test_an_answer_leads_to_its_section(opened):
    link = element(opened, "table.questions a[href='#mnist-cpu--headline']")
    opened.execute_script("arguments[0].click()", link)
    wait(opened, "!document.getElementById('mnist-cpu').hidden")
    top = "document.getElementById('mnist-cpu--headline').getBoundingClientRect().top"
    wait(opened, f"Math.abs({top}) < 300")


@pytest.mark.parametrize("width", [400, 1200])
def test_the_page_never_scrolls_sideways(opened, width):
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    choose(opened, "#dataset", "")
    opened.execute_script("document.querySelectorAll('details').forEach((d) => { d.open = true })")
    draw_all(opened)
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width


def test_a_part_that_scrolls_can_be_reached_by_keyboard(opened):
    metrics = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    wait(opened, f"document.querySelector('{TABLE} .scroll').tabIndex === 0")


def test_dark_changes_page_and_charts(opened):
    draw_all(opened)
    state = (
        "[getComputedStyle(document.body).backgroundColor,"
        " document.querySelector('#mnist5k-cpu--headline .chart svg text').getAttribute('fill')]"
    )
    opened.execute_script("document.getElementById('mnist5k-cpu--headline').scrollIntoView()")
    light = opened.execute_script(f"return {state}")
    feature = {"name": "prefers-color-scheme", "value": "dark"}
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    wait(opened, f"{state}[1] !== {json.dumps(light[1])}")
    assert opened.execute_script(f"return {state}")[0] != light[0]


def test_the_keyboard_reaches_a_heading_and_sorts(opened):
    from selenium.webdriver import ActionChains, Keys

    opened.execute_script(f"document.querySelector('{LONG} .find').focus()")
    for _ in range(10):
        ActionChains(opened).send_keys(Keys.TAB).perform()
        focus = opened.switch_to.active_element
        if opened.execute_script("return arguments[0].matches('th button')", focus):
            break
    ActionChains(opened).send_keys(Keys.ENTER).perform()
    heading = focus.find_element("xpath", "..")
    assert heading.get_attribute("aria-sort") == "ascending"
    outline = opened.execute_script("return getComputedStyle(arguments[0]).outlineStyle", focus)
    assert outline != "none"


def test_the_first_stop_skips_to_the_questions(opened):
    from selenium.webdriver import ActionChains, Keys

    ActionChains(opened).send_keys(Keys.TAB).perform()
    assert opened.switch_to.active_element.get_attribute("href").endswith("#questions")


def test_printing_draws_and_opens_what_is_shown(opened):
    # microtasks end before the browser lays out the paper, and hence before `afterprint`
    opened.execute_script(
        "const count = (selector) => document.querySelectorAll(selector).length;"
        "window.printed = [];"
        "addEventListener('afterprint', () => window.printed.push('done'));"
        "addEventListener('beforeprint', async () => {"
        "  for (let turn = 0; turn < 3000; turn++) await null;"
        "  const shown = 'article:not([hidden]) ';"
        "  window.printed.push(count(shown + '.chart'), count(shown + '.chart svg'),"
        "    count('details:not([open])'));"
        "})"
    )
    opened.execute_cdp_cmd("Page.printToPDF", {"pageRanges": "1"})
    charts, drawn, closed, *after = opened.execute_script("return window.printed")
    assert charts > 0
    assert drawn == charts
    assert closed == 0
    assert after == ["done"]
