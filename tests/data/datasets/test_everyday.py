"""The everyday tasks that are shipped: a benign control, offline."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from jaxalign.data.datasets import instructions
from jaxalign.data.datasets.instructions import EVERYDAY_FILE, load_instructions
from jaxalign.safety.starter_prompts import load_over_refusal, load_starter_prompts
from jaxalign.values.portraits import load_portraits
from jaxalign.values.schwartz import VALUES
from jaxalign.values.starter import FILE

QUESTIONS = FILE.parent / "everyday_questions.txt"
CONF = Path(__file__).parents[3] / "conf" / "dataset" / "everyday.yaml"
ROWS = [json.loads(line) for line in EVERYDAY_FILE.read_text(encoding="utf-8").splitlines()]
COMMON = {
    *("a", "an", "and", "are", "at", "be", "can", "did", "do", "does", "for", "from", "give", "has", "have", "how"),
    *("i", "in", "into", "is", "it", "its", "me", "my", "of", "on", "one", "or", "out", "should", "so", "tell", "than"),
    *("that", "the", "them", "there", "they", "this", "to", "two", "up", "was", "were", "what", "when", "where"),
    *("which", "who", "why", "with", "write", "you", "your"),
}


def words(text):
    return set(re.findall(r"[a-z]+", text.lower())) - COMMON


def test_every_task_is_read_without_a_path_or_a_network(monkeypatch):
    monkeypatch.setattr(instructions, "download", lambda *_, **__: pytest.fail("the hub was asked"))
    examples = load_instructions("everyday", None, prompt=OmegaConf.load(CONF).prompt, offline=True)
    assert [example.response for example in examples] == [row["response"] for row in ROWS]
    first = next(number for number, row in enumerate(ROWS) if row["input"] == "3x + 4 = 19")
    assert examples[first].prompt == "Task: Solve for x.\nInput: 3x + 4 = 19\nAnswer:\n"
    assert sum("Input:" in example.prompt for example in examples) == sum(bool(row["input"]) for row in ROWS)


def test_there_are_424_tasks_and_none_comes_twice():
    assert len(ROWS) == 424 and all(list(row) == ["instruction", "input", "response"] for row in ROWS)
    for fields in (("instruction", "input"), ("response",)):
        counts = Counter(" ".join(row[field] for field in fields).casefold() for row in ROWS)
        assert [text for text, count in counts.items() if count > 1] == []


def test_answers_have_5_to_60_words_and_no_space_at_their_ends():
    assert [row for row in ROWS if not 5 <= len(row["response"].split()) <= 60] == []
    assert [row for row in ROWS if any(text != text.strip() for text in row.values())] == []


def test_no_task_names_a_value_or_resembles_what_the_models_are_asked():
    """Half of the words in common would be a resemblance."""
    names = re.compile("|".join(value.replace("_", "[- ]") for value in VALUES), re.IGNORECASE)
    assert [row for row in ROWS if names.search(" ".join(row.values()))] == []
    asked = [one.prompt for one in load_starter_prompts() + load_over_refusal()]
    asked += [*QUESTIONS.read_text(encoding="utf-8").splitlines(), *(one.text for one in load_portraits("starter"))]
    for row in ROWS:
        mine = words(f"{row['instruction']} {row['input']}")
        for text in asked:
            theirs = words(text)
            assert len(mine & theirs) < 0.5 * len(mine | theirs), (row["instruction"], text)
