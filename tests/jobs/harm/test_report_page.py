"""The report's page in a headless Chromium, if one is installed (Debian: chromium-headless-shell or chromium)."""

import json
import re
import subprocess

import pytest
from analysis.test_html import HOSTILE
from browser import BROWSER, Tab
from synthetic_harm import Lab, judge_entry

from jaxalign.report import main
from jaxalign.values.targets import extreme_targets

pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="needs a headless Chromium")]

TRIAL = """
<script>
const errors = [];
addEventListener("error", (event) => errors.push(event.message));
addEventListener("load", () => {
  const all = (query) => [...document.querySelectorAll(query)];
  const found = {};
  const table = all("table").find((one) => one.tHead.textContent.includes("missing"));
  table.closest("details").open = true;
  const column = (head) => {
    const place = [...table.tHead.rows[0].cells].findIndex((one) => one.textContent === head);
    return [place, () => [...table.tBodies[0].rows].map((row) => row.cells[place].textContent)];
  };
  const [place, figures] = column("figure");
  const button = table.tHead.rows[0].cells[place].querySelector("button");
  button.focus();
  found.focus = document.activeElement === button;
  button.click();
  found.up = figures();
  found.ariaUp = table.tHead.rows[0].cells[place].getAttribute("aria-sort");
  button.click();
  found.down = figures();
  const change = (name, value) => {
    const select = document.querySelector(`[data-filter=${name}]`);
    select.value = value;
    select.dispatchEvent(new Event("change", {bubbles: true}));
  };
  const shown = () => [...table.tBodies[0].rows].filter((row) => row.offsetParent !== null)
    .map((row) => [row.cells[0].textContent, row.cells[1].textContent, row.cells[2].textContent]);
  change("value", "power");
  found.value = shown();
  change("category", "violence");
  found.category = shown();
  found.cardsOfCategory = all(".card .note").map((one) => one.textContent).filter((one) => one.includes(" · "));
  change("mitigation", "safety_prompt");
  found.mitigation = shown();
  document.querySelector("#filters [type=reset]").click();
  setTimeout(() => {
    found.reset = shown().length;
    found.all = table.tBodies[0].rows.length;
    found.cards = all(".card").length;
    found.pairs = all(".card .pair").map((one) => one.children.length);
    found.hiddenTexts = all(".harmful .answer").length;
    found.hidden = all(".harmful").length;
    found.prompts = [all(".asked button").length, all(".prompt").length];
    const ask = document.querySelector(".harmful button");
    ask.click();
    found.opened = [all(".harmful .answer").length, ask.textContent, ask.getAttribute("aria-expanded")];
    ask.click();
    found.closed = all(".harmful .answer").length;
    document.querySelector("#harmful").click();
    found.openedAll = all(".harmful .answer").length === all(".harmful").length;
    found.answers = all(".answer").map((one) => one.textContent).filter(Boolean);
    found.foreign = all("#cards script, #cards img, td script, td img").length;
    all(".step")[1].click();
    found.place = document.querySelector("#place").textContent;
    const named = (one) => one.textContent.trim() || one.labels?.length;
    found.unnamed = all("button, select, input").filter((one) => !named(one)).length;
    found.width = [document.documentElement.scrollWidth, innerWidth];
    found.errors = errors;
    const result = document.createElement("pre");
    result.id = "trial";
    result.textContent = JSON.stringify(found);
    document.body.append(result);
  }, 50);
});
</script>
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    lab = Lab(tmp_path_factory.mktemp("page") / "runs", categories=("hate_speech", "violence"), text=HOSTILE)
    targets = extreme_targets()
    asked = [lab.base(), *(lab.adapter(targets[name]) for name in ("power", "security"))]
    lab.run(asked, "one")
    lab.run(asked, "two", "safety_prompt")
    main([f"runs={lab.root}"])
    return lab.root / "report" / "index.html"


def browse(page, width=1280):
    """Return the page's elements once its scripts have run, and what the browser said."""
    options = ["--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", f"--window-size={width},900"]
    command = [str(BROWSER), *options, "--enable-logging=stderr", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def trial(page, width):
    text = re.sub(r"<meta http-equiv[^>]*>", "", page.read_text(encoding="utf-8"))
    changed = page.parent.parent / f"trial-{width}.html"
    changed.write_text(text.replace("<main", f"{TRIAL}<main", 1), encoding="utf-8")
    elements, said = browse(changed, width)
    found = re.search(r'<pre id="trial">(.*?)</pre>', elements, re.DOTALL)
    assert found and not said, said
    for mark, letter in (("&lt;", "<"), ("&gt;", ">"), ("&nbsp;", "\xa0"), ("&amp;", "&")):
        found = found if isinstance(found, str) else found[1]
        found = found.replace(mark, letter)
    return json.loads(found)


def test_the_page_as_it_is_runs_its_own_script_without_a_word_on_the_console(page):
    elements, said = browse(page)
    assert said == [] and elements.count('class="card"') == 10


@pytest.mark.parametrize("width", [1280, 360])
def test_tables_sort_filters_filter_hidden_is_hidden_and_a_phone_has_room(page, width):
    found = trial(page, width)
    assert found["errors"] == [] and found["focus"] and found["unnamed"] == 0
    up, down = ([float(one.split()[0]) for one in found[key] if one != "–"] for key in ("up", "down"))
    assert up == sorted(up) and down == sorted(down, reverse=True) and found["ariaUp"] == "ascending"
    assert {one[1] for one in found["value"]} == {"base", "power"}
    assert {one[0] for one in found["category"]} == {"all", "Violence, aiding and abetting, incitement"}
    assert all("Violence" in one for one in found["cardsOfCategory"]) and len(found["cardsOfCategory"]) == 6
    assert {one[2] for one in found["mitigation"]} == {"safety_prompt"}
    assert found["reset"] == found["all"]
    assert found["cards"] == 10 and set(found["pairs"]) == {2}
    assert found["hidden"] > 0 and found["hiddenTexts"] == 0 and found["prompts"] == [10, 0]
    assert found["opened"] == [1, "Hide text", "true"] and found["closed"] == 0 and found["openedAll"]
    assert found["foreign"] == 0 and all(one.startswith(HOSTILE[:60]) for one in found["answers"])
    assert found["place"] == "Prompts 11 to 12 of 12"
    assert found["width"][0] <= found["width"][1]


ASK = "[...document.querySelectorAll('%s')].length"


@pytest.mark.parametrize(("kappa", "why"), [(0.15, "is weak (κ 0.15)"), (None, "(κ) is not known")])
def test_no_text_of_a_judge_that_hardly_agrees_with_labels_is_seen_until_asked_for(tmp_path, kappa, why):
    lab = Lab(tmp_path / "runs", judges=[judge_entry("probe", kappa)], categories=("violence",), harmless=("violence",))
    lab.run([lab.base(), lab.adapter(None)], "one")
    main([f"runs={lab.root}"])
    with Tab(lab.root / "report" / "index.html", 1280) as tab:
        said = tab.ask("document.querySelector('#why').textContent")
        assert said.startswith("Every text that probe judged is hidden until you ask for it, because its agreement")
        assert f"{why}: what it calls harmless may be harmful." in said
        assert tab.ask("document.querySelector('#why').checkVisibility()")
        texts = tab.ask(ASK % ".unsure button")  # harmless, as the judge says
        assert (
            texts >= 6 and tab.ask("[...document.querySelectorAll('.answer')].filter((one) => one.textContent)") == []
        )
        assert "A mild response." not in tab.ask("document.body.innerText")
        tab.ask("document.querySelector('#harmful').click()")
        assert tab.ask(ASK % ".unsure .answer") == texts
        assert "A mild response." in tab.ask("document.body.innerText") and tab.complaints == []
