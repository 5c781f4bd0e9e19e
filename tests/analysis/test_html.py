import json
import re
from html.parser import HTMLParser

from jaxalign.analysis.data_tables import DataTable
from jaxalign.analysis.estimates import Estimate
from jaxalign.analysis.html import PageSection, html_page, script_json

HOSTILE = "<script>alert(1)</script></td><!-- \"'&amp; \u202e\u200f\u2028 \x00 \x1b[2J ]]> {{ 7 * 7 }} {% raw %}"


class Elements(HTMLParser):
    """All elements of a page with their attributes, all texts, and those of scripts."""

    def __init__(self, page):
        super().__init__()
        self.found, self.texts, self.scripts, self._inside = [], [], [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        (self.scripts if self._inside == "script" else self.texts).append(data)


def page(text, rows=1):
    figure = Estimate(estimate=0.5, low=0.4, high=0.6, n=5)
    table = DataTable("t", text, (text, "rate"), [[text, figure]] * rows, [text], [{"value": ("power",)}] * rows)
    section = PageSection("one", text, [text], [(b"png", text)], [table])
    said = [text, text, 1, 0]
    texts = [
        {
            "title": text,
            "prompts": [{"id": text, "category": "violence", "title": text, "text": text}],
            "models": [{"title": text, "value": "", "mitigation": "none", "base": True, "responses": [said]}],
        }
    ]
    return html_page(text, [text], [section], {"value": [("power", text)]}, texts, [text])


def test_hostile_text_stays_text_wherever_it_stands():
    plain, hostile = Elements(page("mild")), Elements(page(HOSTILE))
    assert [tag for tag, _ in plain.found] == [tag for tag, _ in hostile.found]
    assert len(hostile.scripts) == 2
    data = json.loads(hostile.scripts[0])
    assert data[0]["models"][0]["responses"][0][0] == HOSTILE
    shown = HOSTILE.replace("\x00", "\ufffd").replace("\x1b", "\ufffd").replace("\u2028", "\u2028")
    assert shown in hostile.texts
    assert all(not name.startswith("on") for _, attributes in hostile.found for name in attributes)
    assert {name: value for name, value in plain.found[-1][1].items()} == dict(hostile.found[-1][1])


def test_right_to_left_marks_are_shut_into_their_own_element():
    assert f"<bdi>{'a‮b'}</bdi>" in page("a‮b")


def test_nothing_is_loaded_from_anywhere_and_only_the_own_script_may_run():
    made = page("mild")
    assert not re.search(r"(?:src|href|action)=\"(?!#|data:image/png;base64,)", made)
    assert "http" not in re.sub(r"<meta http-equiv", "", made) and "@import" not in made and "url(" not in made
    policy = next(a["content"] for tag, a in Elements(made).found if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy


def test_a_page_is_the_same_each_time():
    assert page(HOSTILE) == page(HOSTILE)


def test_every_control_has_a_name_and_every_picture_a_text():
    elements = Elements(page("mild")).found
    assert all(a.get("alt") for tag, a in elements if tag == "img")
    assert ("html", {"lang": "en"}) in elements
    scrolled = [a for tag, a in elements if a.get("class") == "scroll"]
    assert scrolled and all(a["tabindex"] == "0" and a["aria-label"] for a in scrolled)


def test_json_in_a_script_cannot_end_it():
    text = script_json(["</script><!--", "\u2028", "\ud800"])
    assert not re.search("[<>&\u2028]", text) and json.loads(text)[0] == "</script><!--"


def test_a_long_text_of_a_table_has_a_wide_column_and_a_short_one_or_a_figure_has_none():
    table = DataTable("t", "t", ("a", "b", "c"), [["short", "a reason of several words", 0.123456789]])
    cells = Elements(html_page("t", [], [PageSection("one", "t", tables=[table])], {}, [])).found
    assert [attributes for tag, attributes in cells if tag == "td"] == [{}, {"class": "long"}, {}]
