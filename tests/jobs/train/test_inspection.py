import io

from rich.console import Console

from jaxalign.data.encoding import Encoder, encode_examples
from jaxalign.data.examples import Example, TextStage
from jaxalign.jobs.train.inspection import print_examples
from jaxalign.training.supervised import SupervisedStage

QUESTION = "How much is this like you?\n"
EXAMPLES = [
    Example(QUESTION, "Because power is dear to me, 6", "a/power", weight=2.5),
    Example(QUESTION, "Because security is not, 1", "a/security"),
    Example("Who [bold]knows[/bold]?\n", "I do", "b", positive=True),
    Example("Who dares?\n", "I do not", "c", positive=False),
]


def shown(tokenizer, examples=EXAMPLES, count=5, colour=False, length=2048, truncate=None, **options):
    """What is printed of one stage, on a screen wide enough to leave lines whole."""
    encoder = Encoder(tokenizer)
    train = encode_examples(examples, encoder, length, truncate=truncate)
    stages = [SupervisedStage("survey", train, encode_examples([], encoder, length))]
    file = io.StringIO()
    system = "truecolor" if colour else None
    console = Console(file=file, width=200, force_terminal=colour, color_system=system, no_color=False)
    print_examples(console, [TextStage("survey", list(examples), [])], stages, encoder, count, **options)
    return file.getvalue()


def test_a_shared_prompt_is_printed_once_with_its_responses_as_branches(tokenizer):
    text = shown(tokenizer, EXAMPLES[:2])
    assert "1 tree" in text
    assert text.count("How much is this like you?↵") == 1
    assert "segment 0 · root · 27 tokens, positions 0 to 26" in text
    assert (
        "segment 1 · branch 0 · after segment 0 · 31 tokens, positions 27 to 57 · example a/power · weight 2.50" in text
    )
    assert "segment 2 · branch 1 · after segment 0 · 27 tokens, positions 27 to 53 · example a/security\n" in text
    assert "2 examples, 85 tokens, 112 if each stood alone" in text
    assert text.count("How much") < shown(tokenizer, EXAMPLES[:2], share_prompts=False).count("How much") == 2


def test_without_colours_the_trained_text_and_its_end_token_stand_between_marks(tokenizer):
    text = shown(tokenizer)
    assert "⟦Because power is dear to me, 6<|im_end|>⟧" in text
    assert "\x1b" not in text


def test_with_colours_they_are_green_and_reversed_and_text_is_never_read_as_markup(tokenizer):
    text = shown(tokenizer, colour=True)
    assert "\x1b[32mI do\x1b[0m\x1b[7;32m<|im_end|>\x1b[0m" in text
    assert "⟦" not in text
    assert "[bold]knows[/bold]" in text


def test_branches_are_numbered_over_all_trees_as_in_a_batch(tokenizer):
    text = shown(tokenizer)
    assert [f"branch {number}" in text for number in range(5)] == [True] * 4 + [False]
    assert "tree 1: 2 examples" in text
    assert "example b · positive" in text
    assert "example c · negative" in text


def test_as_many_examples_are_printed_as_asked_for(tokenizer):
    text = shown(tokenizer, count=2)
    assert "4 examples, 0 of them cut" in text
    assert "here examples 1 to 2" in text
    assert "Who" not in text


def test_examples_that_were_shortened_come_first_and_what_is_lost_is_quoted(tokenizer):
    premise = "many people say so and nobody minds"
    long = Example(f"Is it so, as {premise}?\n", "It is", "long", shorten=premise)
    text = shown(tokenizer, [Example("Hi\n", "Hello", "short"), long], count=1, length=40)
    assert "2 examples, 1 of them cut" in text
    assert "here example 2," in text
    assert "Is it so, as many people say so?↵" in text
    assert "✂ shortened; lost: ' and nobody minds'" in text


def test_answers_that_the_released_length_cuts_off_are_shown_and_lost_examples_named(tokenizer):
    examples = [
        Example("Q" * 12 + "\n", "Gone", "gone"),
        Example("Q\n", "Kept in part only", "part"),
        Example("Z\n", "Whole", "whole"),
    ]
    text = shown(tokenizer, examples, truncate=12)
    assert "3 examples, 2 of them cut" in text
    assert "⟦Kept in pa⟧" in text
    assert "✂ cut off after 10 tokens of the response; lost: 'rt only<|im_end|>'" in text
    assert "⟦Whole<|im_end|>⟧" in text
    assert "example gone is left out" in text
