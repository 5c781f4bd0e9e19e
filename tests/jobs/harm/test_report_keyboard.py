"""The report's page without a mouse, and on a phone: real keys in a headless Chromium, if one is installed."""

import pytest
from browser import BROWSER, SHIFT, Tab
from synthetic_harm import Lab

from jaxalign.report import main
from jaxalign.values.targets import extreme_targets

pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="needs a headless Chromium")]

WIDTHS = pytest.mark.parametrize("width", [1280, 360])

CONTROLS = """
window.controls = () => [...document.querySelectorAll("a, button, select, input, summary, [tabindex='0']")]
  .filter((one) => !one.disabled && one.checkVisibility());
window.here = () => {
  const one = document.activeElement;
  const box = one.getBoundingClientRect();
  const style = getComputedStyle(one);
  const x = Math.max(box.left, 0) + Math.min(box.width, 20) / 2;
  const y = Math.max(box.top, 0) + Math.min(box.height, 20) / 2;
  const top = document.elementFromPoint(x, y);
  return {
    place: controls().indexOf(one),
    ring: one.matches(":focus-visible") && style.outlineStyle === "solid" && parseFloat(style.outlineWidth) >= 3,
    seen: top !== null && (one.contains(top) || top.contains(one) && !top.matches("#filters, form")),
    name: one.getAttribute("aria-label") || one.textContent.trim() || one.labels?.[0]?.textContent,
    what: one.outerHTML.slice(0, 120),
  };
};
window.widest = () => Math.max(...[...document.querySelectorAll("body *")].filter((one) =>
  one.checkVisibility() && !one.closest("table, .skip")).map((one) => one.getBoundingClientRect().right));
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    lab = Lab(tmp_path_factory.mktemp("keys") / "runs", categories=("hate_speech", "violence"), text="word " * 40)
    targets = extreme_targets()
    asked = [lab.base(), *(lab.adapter(targets[name]) for name in ("power", "security"))]
    lab.run(asked, "one")
    main([f"runs={lab.root}"])
    return lab.root / "report" / "index.html"


@pytest.fixture
def tab(page, width):
    with Tab(page, width) as opened:
        opened.ask(CONTROLS)
        yield opened
        assert opened.complaints == []


def go_to(tab, element):
    """Press Tab until an element has the focus."""
    for _ in range(tab.ask("controls().length") + 1):
        if tab.ask(f"document.activeElement === {element}"):
            return
        tab.press("Tab")
    raise AssertionError(f"Tab does not reach {element}")


@WIDTHS
def test_tab_reaches_every_control_in_the_order_of_the_page_and_its_focus_is_seen(tab):
    count = tab.ask("controls().length")
    steps = []
    for _ in range(count):
        tab.press("Tab")
        steps.append(tab.ask("here()"))
    assert [one["place"] for one in steps] == list(range(count))
    assert [one for one in steps if not (one["ring"] and one["seen"] and one["name"])] == []
    kinds = tab.ask(
        "['th button', 'select[data-filter]', '.harmful button'].map((q) => document.querySelectorAll(q).length)"
    )
    assert min(kinds) >= 3
    back = []
    for _ in range(count - 1):
        tab.press("Tab", SHIFT)
        back.append(tab.ask("here()"))
    assert [one["place"] for one in back] == list(range(count - 2, -1, -1))
    assert [one for one in back if not (one["ring"] and one["seen"])] == []


@WIDTHS
def test_enter_and_space_sort_a_table_and_a_screen_reader_hears_how(tab):
    tab.ask(
        "window.table = [...document.querySelectorAll('table')].find((one) => one.tHead.textContent.includes('blank'));"
        "window.head = [...table.tHead.rows[0].cells].find((one) => one.textContent === 'blank');"
        "window.cells = () => [...table.tBodies[0].rows].map((row) => row.cells[head.cellIndex].textContent);"
        "0"
    )
    assert tab.ask("[...table.tHead.rows[0].cells].every((one) => one.getAttribute('aria-sort') === 'none')")
    go_to(tab, "head.firstElementChild")
    for key, order in (("Enter", "ascending"), ("Space", "descending"), ("Space", "ascending")):
        tab.press(key)
        figures = [float(one) for one in tab.ask("cells()")]
        assert figures == sorted(figures, reverse=order == "descending") and len(set(figures)) > 1
        assert tab.ask("head.getAttribute('aria-sort')") == order
        assert tab.ask("document.activeElement === head.firstElementChild")
    assert tab.ask("document.querySelectorAll('th:not([aria-sort=none])').length") == 1


@WIDTHS
def test_filters_tables_and_hidden_texts_open_and_close_by_key(tab):
    go_to(tab, "document.querySelector('[data-filter=category]')")
    shown = tab.ask("document.querySelectorAll('tbody tr:not([hidden])').length")
    tab.press("ArrowDown")
    assert tab.ask("document.querySelectorAll('tbody tr:not([hidden])').length") < shown
    go_to(tab, "document.querySelector('#filters button')")
    tab.press("Enter")
    tab.ask("new Promise((done) => setTimeout(done, 100))")
    assert tab.ask("document.querySelectorAll('tbody tr:not([hidden])').length") == shown
    go_to(tab, "document.querySelector('summary')")
    tab.press("Space")
    assert not tab.ask("document.querySelector('details').open")
    tab.press("Enter")
    assert tab.ask("document.querySelector('details').open")
    ask = "document.querySelector('.harmful button')"
    go_to(tab, ask)
    assert tab.ask("here().name").startswith("Show text: ")
    for key, is_open in (("Enter", True), ("Space", False), ("Space", True), ("Enter", False)):
        tab.press(key)
        assert tab.ask(f"{ask}.getAttribute('aria-expanded')") == str(is_open).lower()
        assert tab.ask("document.querySelectorAll('.harmful .answer').length") == is_open
        assert tab.ask("here().name").startswith("Hide text: " if is_open else "Show text: ")
    names = tab.ask("[...document.querySelectorAll('.harmful button')].map((one) => one.getAttribute('aria-label'))")
    assert len(set(names)) == len(names)
    prompt = "document.querySelector('.asked button')"
    assert tab.ask("document.querySelectorAll('.prompt').length") == 0
    go_to(tab, prompt)
    assert tab.ask("here().name").startswith("Show text: prompt ")
    for key, is_open in (("Enter", True), ("Space", False)):
        tab.press(key)
        assert tab.ask("document.querySelectorAll('.asked .prompt').length") == is_open
    go_to(tab, "document.querySelector('#harmful')")
    tab.press("Space")
    assert tab.ask("document.querySelectorAll('.asked:not(:has(.prompt))').length") == 0
    assert tab.ask("document.querySelectorAll('.harmful:not(:has(.answer))').length") == 0


@WIDTHS
def test_the_keyboard_keeps_its_place_on_the_last_page_of_responses(tab):
    go_to(tab, "document.querySelectorAll('.step')[1]")
    tab.press("Enter")
    assert tab.ask("document.querySelector('#place').textContent") == "Prompts 11 to 12 of 12"
    assert tab.ask("document.activeElement === document.querySelectorAll('.step')[0]")
    tab.press("Space")
    assert tab.ask("document.querySelector('#place').textContent") == "Prompts 1 to 10 of 12"
    assert tab.ask("document.activeElement === document.querySelectorAll('.step')[1]")


@WIDTHS
def test_the_page_never_scrolls_sideways(tab, width):
    tab.ask("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    tab.ask("document.querySelector('#harmful').click()")
    assert tab.ask("document.documentElement.scrollWidth") <= width
    assert tab.ask("innerWidth") == width
    assert tab.ask("widest()") <= width
