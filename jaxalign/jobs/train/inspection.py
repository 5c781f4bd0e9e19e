"""Training examples as the model sees them: decoded token trees, with the trained tokens marked."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.text import Text
from rich.tree import Tree as RichTree

from jaxalign.data.encoding import Encoded, Encoder
from jaxalign.data.examples import Example, TextStage
from jaxalign.data.trees import Segment, Tree, merge, path_lengths
from jaxalign.pretrained.tokenizer import Tokenizer
from jaxalign.runs.progress import say
from jaxalign.training.supervised import SupervisedStage

TRAINED, SPECIAL, NOTE, WARNING = "green", "reverse", "dim", "yellow"


@dataclasses.dataclass(frozen=True)
class ShownExample:
    """One example as text and as tokens; the tokens are empty if the example was left out."""

    example: Example
    prompt: np.ndarray
    response: np.ndarray
    weight: float
    cut: bool


def print_examples(
    console: Console,
    text_stages: Sequence[TextStage],
    stages: Sequence[SupervisedStage],
    encoder: Encoder,
    count: int,
    *,
    share_prompts: bool = True,
) -> None:
    """Print `count` consecutive training examples of each stage as token trees, and the text that was cut off.

    If a stage has cut examples, the first cut example is among those shown. Without colours, trained text stands
    between ⟦ and ⟧.

    Args:
        console: where the examples are printed.
        text_stages: the examples of each stage as text.
        stages: the same examples as tokens.
        encoder: the encoder that made them.
        count: the number of examples of each stage; all, if the stage has fewer.
        share_prompts: whether equal prompts are computed once (`training.share_prompts`).
    """
    colour = console.color_system is not None and not console.no_color
    legend = Text("trained text is ")
    legend.append("green" if colour else "⟦marked so⟧", TRAINED)
    legend.append(", special tokens are ")
    legend.append("<|so|>" if colour else "as the tokenizer spells them", SPECIAL if colour else "")
    say(console, legend.append(", ↵ is a newline"))
    for text, data in zip(text_stages, stages, strict=True):
        cut = data.train.cut
        start = min(cut.index(True) if True in cut else 0, max(len(text.train) - count, 0))
        items = _pair(text.train, data.train, encoder)[start : start + count]
        kept = [item for item in items if len(item.response)]
        trees = _trees(kept, share_prompts)
        console.print()
        console.rule(Text(f"stage {data.name}", "bold"), align="left", style=NOTE)
        head = f"{len(text.train):,} examples, {sum(cut):,} of them cut, and {len(text.validation):,} held out"
        places = f"example {start + 1}" if len(items) == 1 else f"examples {start + 1} to {start + len(items)}"
        console.print(f"{head}; here {places}, {len(trees)} {_plural('tree', len(trees))}", highlight=False)
        branch = 0
        for number, tree in enumerate(trees):
            console.print()
            console.print(_render(tree, number, branch, kept, encoder, colour), highlight=False)
            branch += sum(segment.scored for segment in tree)
        for item in items:
            if not len(item.response):
                line = f"example {item.example.id} is left out: nothing of its response remained"
                say(console, Text(line, WARNING))


def _pair(examples: Sequence[Example], encoded: Encoded, encoder: Encoder) -> list[ShownExample]:
    """Match texts and tokens. An example without tokens was left out, which happens only to cut examples."""
    items, place, nothing = [], 0, np.zeros(0, np.int32)
    dropped = len(examples) - len(encoded)
    for example, cut in zip(examples, encoded.cut, strict=True):
        here = place < len(encoded) and (
            not (cut and dropped) or _begins(example, encoded.prompts[place], encoded.responses[place], encoder)
        )
        if here:
            tokens = encoded.prompts[place], encoded.responses[place]
            items.append(ShownExample(example, *tokens, encoded.weights[place], cut))
            place += 1
        else:
            items.append(ShownExample(example, nothing, nothing, example.weight, cut))
    return items


def _begins(example: Example, prompt: np.ndarray, response: np.ndarray, encoder: Encoder) -> bool:
    """Return whether these tokens are the beginning of an example."""
    text = example.prompt if isinstance(example.prompt, str) else example.prompt[-1].content
    return text.strip() in encoder.tokenizer.decode(prompt) and np.array_equal(
        _whole(example, encoder)[: len(response)], response
    )


def _whole(example: Example, encoder: Encoder) -> np.ndarray:
    """Return the tokens of the response of an example that was not cut."""
    return encoder.branches(example.prompt, [example.response], end=True)[1][0]


def _trees(items: Sequence[ShownExample], share_prompts: bool) -> list[Tree]:
    if share_prompts:
        return merge([i.prompt for i in items], [i.response for i in items], [i.weight for i in items])
    return [(Segment(i.prompt, -1), Segment(i.response, 0, True, i.weight)) for i in items]


def _render(
    tree: Tree, number: int, branch: int, items: Sequence[ShownExample], encoder: Encoder, colour: bool
) -> RichTree:
    """Return a token tree as text; its branches are numbered from `branch` on, as in a packed batch."""
    lengths = path_lengths(tree)
    alone = sum(length for segment, length in zip(tree, lengths, strict=True) if segment.scored)
    stored, examples = sum(len(segment.tokens) for segment in tree), sum(segment.scored for segment in tree)
    saved = f", {alone:,} if each stood alone" if alone > stored else ""
    title = f"tree {number}: {examples} {_plural('example', examples)}, {stored:,} tokens{saved}"
    top = RichTree(Text(title, "bold"), guide_style=NOTE)
    nodes: list[RichTree] = []
    for index, (segment, length) in enumerate(zip(tree, lengths, strict=True)):
        size = len(segment.tokens)
        origin = "root" if segment.parent < 0 else f"after segment {segment.parent}"
        places = f"positions {length - size} to {length - 1}" if size > 1 else f"position {length - 1}"
        facts = [f"segment {index}", origin, f"{size} {_plural('token', size)}, {places}"]
        lost = ""
        if segment.scored:
            item = next(item for item in items if item.response is segment.tokens)
            facts[1:1] = [f"branch {branch}"]
            facts += _about(item.example, segment.weight)
            lost = f"\n✂ {_lost(item, encoder)}" if item.cut else ""
            branch += 1
        label = Text().append(" · ".join(facts), NOTE).append("\n")
        label.append_text(_decode(segment, encoder.tokenizer, colour))
        label.append(lost, WARNING)
        nodes.append((top if segment.parent < 0 else nodes[segment.parent]).add(label))
    return top


def _about(example: Example, weight: float) -> list[str]:
    side = [] if example.positive is None else ["positive" if example.positive else "negative"]
    return [f"example {example.id}", *side, *([] if weight == 1 else [f"weight {weight:.2f}"])]


def _decode(segment: Segment, tokenizer: Tokenizer, colour: bool) -> Text:
    """Return a segment's text with its special tokens marked; without colours, trained text gets marks around it."""
    special = set(tokenizer.hf.all_special_ids)
    style = TRAINED if segment.scored else ""
    text = Text().append("⟦" if segment.scored and not colour else "", style)
    ids = segment.tokens.tolist()
    begin = 0
    for end in range(1, len(ids) + 1):
        if end == len(ids) or (ids[end] in special) != (ids[begin] in special) or ids[begin] in special:
            piece = tokenizer.decode(ids[begin:end]).replace("\n", "↵\n")
            text.append(piece, f"{style} {SPECIAL}".strip() if ids[begin] in special else style)
            begin = end
    if text.plain.endswith("↵\n"):
        text.right_crop(1)
    return text.append("⟧", style) if segment.scored and not colour else text


def _lost(item: ShownExample, encoder: Encoder) -> str:
    """Return a line that says which text of an example was cut off."""
    whole, tokenizer = _whole(item.example, encoder), encoder.tokenizer
    size = len(item.response)
    if size < len(whole) and np.array_equal(whole[:size], item.response):
        return f"cut off after {size} tokens of the response; lost: {tokenizer.decode(whole[size:])!r}"
    seen, text = tokenizer.decode(item.prompt) + tokenizer.decode(item.response), item.example.shorten
    kept = next(size for size in range(len(text), -1, -1) if text[:size] in seen)
    return f"shortened; lost: {text[kept:]!r}"


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"
