import re

import pytest

from jaxalign.errors import UserError
from jaxalign.safety.categories import BEAVERTAILS, CATEGORIES, HEX_PHI, category_title, read_category


def test_the_benchmarks_have_as_many_categories_as_published():
    assert {name: len(table) for name, table in CATEGORIES.items()} == {
        "hex_phi": 11,
        "beavertails": 14,
        "realtoxicityprompts": 1,
        "holisticbias_r": 13,
        "xstest": 10,
        "starter_probes": 11 + 14 + 1 - 2,  # child abuse and privacy are in both
    }


def test_identifiers_are_snake_case_and_keys_and_one_identifier_has_one_title():
    titles: dict[str, set[str]] = {}
    for table in CATEGORIES.values():
        for key, category in table.items():
            assert key == category.identifier and re.fullmatch(r"[a-z_]+", key)
            titles.setdefault(key, set()).add(category.title)
    assert all(len(found) == 1 for found in titles.values())
    assert category_title("sexual_content") == "Sexually explicit, adult content"
    assert category_title("mine") == "mine"


@pytest.mark.parametrize("table", [HEX_PHI, BEAVERTAILS])
def test_a_category_is_read_by_identifier_title_and_published_name(table):
    name = "hex_phi" if table is HEX_PHI else "beavertails"
    for category in table.values():
        for said in (category.identifier, category.title, f" {category.published} "):
            assert read_category(said, name, "file") == category.identifier


def test_an_unknown_category_is_an_error_that_says_where_and_what_to_type():
    with pytest.raises(UserError, match=r"^mine\.jsonl, line 3: 'hate_speach' is no category of beavertails; did you"):
        read_category("hate_speach", "beavertails", "mine.jsonl, line 3")
