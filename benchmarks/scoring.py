"""Reading CREST's answers and follow-ups: trees against prompt by prompt, here and in Transformers. See README.md.

This process only starts others, one after another.
"""

import argparse
import dataclasses
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import processor
from parts import child, need
from sampling import load

CONTENDERS = {
    "trees": "jaxalign, trees",
    "packed": "jaxalign, prompts packed into rows",
    "single": "jaxalign, a forward pass for each prompt",
    "bfloat16": "Transformers, bf16",
    "float32": "Transformers, float32",
    "first": "Transformers, the faster, first tokens only",
}

LENGTHS = (0.0, 0.05, 0.25, 0.5, 0.75, 0.85, 0.9, 0.95, 1.0), (9, 21, 36, 51, 75, 96, 123, 207, 256)
"""Quantiles of the tokens of a rationale that the model writes about ARC: see README.md for the command."""

TOKENS_A_WORD = 1.22
"""Of the text that stands in for them."""


def main() -> None:
    args = arguments()
    if args.part is not None:
        print(json.dumps(PARTS[args.part](args)))
        return
    need("torch", "transformers")
    with tempfile.TemporaryDirectory(prefix="jaxalign-bench-") as folder:
        work, results = Path(folder), {}
        facts = child("prepare", "prepare", work)
        for name, title in CONTENDERS.items():
            if name == "first":
                seconds = {one: results[one]["seconds"] for one in ("bfloat16", "float32")}  # of the same questions
                (work / "format").write_text(min(seconds, key=lambda one: seconds[one]))
            results[name] = child(name, title, work)
    report(args, facts, results)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=Path, help="a JSON Lines file in the schema of ARC (default: generated)")
    parser.add_argument(
        "--drawn", type=Path, help="rationales of them: generations.jsonl of a run of stage=rationales (default: text)"
    )
    parser.add_argument("--count", type=int, default=200, help="questions (default: 200)")
    parser.add_argument("--rationales", type=int, default=16, help="rationales of each (default: 16)")
    parser.add_argument("--slow", type=int, default=12, help="questions that Transformers reads (default: 12)")
    parser.add_argument("--contender", dest="part", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if min(args.count, args.rationales, args.slow) < 1:
        parser.error("--count, --rationales and --slow must be at least 1")
    if args.drawn is not None and args.questions is None:
        parser.error("--drawn holds rationales of --questions: give both")
    return args


def report(args: argparse.Namespace, facts: dict[str, Any], results: dict[str, dict[str, Any]]) -> None:
    from jaxalign.parallel.processor import fast_precision

    print(f"\n{facts['rationales']:.1f} distinct rationales of a question ({facts['tokens']:.0f} tokens in the mean),")
    print(f"{facts['right']:.0%} of them with follow-ups; SmolLM2-135M, {processor()}\n")
    print(f"{'':44}{'questions':>10}{'questions/s':>12}{'tokens a question':>20}{'tokens/s':>10}{'trees are':>18}")
    speeds = {name: found["questions"] / found["seconds"] for name, found in results.items()}
    for name, title in CONTENDERS.items():
        found = results[name]
        each, rate = found["computed"] / found["questions"], found["computed"] / found["seconds"]
        ratio = "" if name == "trees" else f"{speeds['trees'] / speeds[name]:.2f} × as fast"
        print(f"{title:44}{found['questions']:10}{speeds[name]:12.3f}{each:20,.0f}{rate:10,.0f}{ratio:>18}")
    tree, packed = results["trees"], results["packed"]
    tokens = (packed["stored"] / packed["questions"]) / (tree["stored"] / tree["questions"])
    worst = max(
        abs(a - b)
        for question, values in results["float32"]["answers"].items()
        for a, b in zip(tree["answers"][question], values, strict=True)
    )
    waste = {name: 1 - results[name]["stored"] / results[name]["computed"] for name in ("trees", "packed")}
    print(f"\npacked prompts hold {tokens:.2f} times the tokens of trees, which is what the tokens allow")
    print(
        f"padding or trunks again: {waste['trees']:.0%} of the tokens on trees, {waste['packed']:.0%} of those packed; "
        f"the host's share of the time: {tree['host']:.0%} and {packed['host']:.0%}"
    )
    print(f"largest difference from Transformers in float32 (ours: {fast_precision()[0]}): {worst:.3f} nats")
    best = max(speeds["bfloat16"], speeds["float32"])
    print(f"scoring={speeds['trees'] / speeds['packed']:.2f} scoring_hf={speeds['trees'] / best:.2f}")


# The children


def prepare(args: argparse.Namespace) -> dict[str, Any]:
    """Write the questions, their rationales as text, which have follow-ups, and the model as a Hugging Face folder."""
    import numpy as np
    from hf_tensors import hf_tensors

    from jaxalign.data.datasets.puzzles import make_puzzles
    from jaxalign.pretrained.gguf import GgufFile
    from jaxalign.pretrained.safetensors import write_safetensors
    from jaxalign.pretrained.sources import fetch

    model, source = load(offline=False)
    random = np.random.default_rng(0)
    if args.questions is None:
        questions = [
            dataclasses.asdict(one) for one in make_puzzles(train=args.count, validation=1, test=1, links=(3,)).train
        ]
    else:
        questions = [as_question(json.loads(line)) for line in args.questions.read_text().splitlines()]
    if args.drawn is None:
        rationales = [made(args.rationales, random) for _ in questions[: args.count]]
    else:
        drawn: dict[str, dict[str, None]] = {}
        for record in map(json.loads, args.drawn.read_text().splitlines()):
            if record["text"].strip() and record["index"] < args.rationales:
                drawn.setdefault(record["id"], {})[record["text"].strip()] = None
        questions = [question for question in questions if question["id"] in drawn]
        rationales = [list(drawn[question["id"]]) for question in questions[: args.count]]
    if len(questions) < args.count:
        raise SystemExit(f"error: there are {len(questions)} such questions: give --count={len(questions)} or less")
    # Half of each question's, so that any of the questions stand for all.
    right = [(random.permutation(len(mine)) < len(mine) / 2).tolist() for mine in rationales]
    given = list(zip(questions[: args.count], rationales, right, strict=True))
    given.sort(key=lambda one: sum(map(len, one[1])))
    (args.work / "given.json").write_text(json.dumps(given))
    base = args.work / "base"
    base.mkdir()
    write_safetensors(base / "model.safetensors", dict(hf_tensors(model.architecture, model.params)), {"format": "pt"})
    (base / "config.json").write_text(json.dumps(GgufFile(fetch(source, offline=True)).config()))
    encoded = {
        question: [[one.tolist() for one in parts] for parts in prompts]
        for question, prompts in prompts_of(args, model.tokenizer).items()
    }
    (args.work / "prompts.json").write_text(json.dumps(encoded))
    return {
        "rationales": float(np.mean([len(mine) for mine in rationales])),
        "tokens": float(np.mean([len(model.tokenizer.encode(f"{text}\n")) for mine in rationales for text in mine])),
        "right": float(np.mean([one for mine in right for one in mine])),
    }


def as_question(row: dict[str, Any]) -> dict[str, Any]:
    """Return the question of a line in the schema of ARC."""
    from jaxalign.data.datasets.question import Question

    options, gold = tuple(row["choices"]["text"]), row["choices"]["label"].index(row["answerKey"])
    return dataclasses.asdict(Question(row["id"], row["question"], options, gold))


def made(count: int, random: Any) -> list[str]:
    """Return text of our own, as long as rationales that the model writes about ARC."""
    import numpy as np

    from jaxalign.values.starter import load_starter

    words = " ".join(argument.premise for argument in load_starter()).split()
    found = []
    for _ in range(count):
        length = round(float(np.interp(random.random(), *LENGTHS)) / TOKENS_A_WORD)
        start = int(random.integers(len(words) - length))
        found.append(" ".join(words[start : start + length]) + ".")
    return found


def given(args: argparse.Namespace, count: int) -> list[tuple[Any, list]]:
    """Return `count` questions with their rationales, spread evenly over their sizes, so that a few stand for all; the
    rationales that are right have follow-ups.
    """
    from jaxalign.data.datasets.question import Question
    from jaxalign.reasoning.rationales import Rationale

    found = []
    everyone = json.loads((args.work / "given.json").read_text())
    for number in range(count):
        one, texts, rights = everyone[int((number + 0.5) * len(everyone) / count)]
        question = Question(**{**one, "options": tuple(one["options"])})
        rationales = [
            Rationale(question.id, text, 1, (), question.gold if right else None, right)
            for text, right in zip(texts, rights, strict=True)
        ]
        found.append((question, rationales))
    return found


def wording() -> Any:
    """Return the shipped wording, with ARC's answers."""
    import yaml

    from jaxalign.config.presets import CONF
    from jaxalign.reasoning.wording import make_wording

    texts, data = (yaml.safe_load((CONF / name).read_text()) for name in ("reasoning/default.yaml", "dataset/arc.yaml"))
    return make_wording(texts, data["reply"], [])


def trees_of(question: Any, mine: list, encoder: Any) -> list:
    """Return all trees of one question: its answers', and its follow-ups' about the rationales that have them."""
    from jaxalign.reasoning.followups import followup_trees
    from jaxalign.reasoning.rationales import answer_tree

    texts = wording()
    answers, _ = answer_tree(question, mine, encoder, texts)
    right = [one for one in mine if one.right]
    return [answers, *(followup_trees(question, right, encoder, texts)[0] if right else [])]


def alone(tree: Any) -> list:
    """Return a tree's prompts each by itself: the path to a parent of answers, with all its answers hanging on it."""
    from jaxalign.data.trees import Segment

    parents = sorted({segment.parent for segment in tree if segment.scored})
    found = []
    for parent in parents:
        path = [parent]
        while tree[path[-1]].parent >= 0:
            path.append(tree[path[-1]].parent)
        segments = [Segment(tree[index].tokens, place - 1) for place, index in enumerate(reversed(path))]
        last = len(segments) - 1
        segments += [Segment(s.tokens, last, True) for s in tree if s.scored and s.parent == parent]
        found.append(tuple(segments))
    return found


def prompts_of(args: argparse.Namespace, tokenizer: Any) -> dict[str, list]:
    """Return the prompts of some questions, each (prompt, its answers...), for a program that knows no trees."""
    import numpy as np

    from jaxalign.data.encoding import Encoder

    found: dict[str, list] = {}
    for question, mine in given(args, min(args.slow, args.count)):
        for tree in trees_of(question, mine, Encoder(tokenizer)):
            for one in alone(tree):
                prompt = np.concatenate([segment.tokens for segment in one if not segment.scored])
                answers = (segment.tokens for segment in one if segment.scored)
                found.setdefault(question.id, []).append([prompt, *answers])
    return found


def jaxalign(args: argparse.Namespace) -> dict[str, Any]:
    """Time the scorer on trees, or on prompts that share nothing: many in a row, or each in its own forward pass."""
    import jax.numpy as jnp
    import numpy as np

    from jaxalign.data.encoding import Encoder
    from jaxalign.data.trees import radix, tree_length
    from jaxalign.inference.base_model import BaseModel
    from jaxalign.inference.passes import pack_for_reading
    from jaxalign.parallel.compilation import Programs, use_compilation_cache
    from jaxalign.parallel.processor import fast_precision

    use_compilation_cache(args.work / "xla")
    precision = fast_precision()[0]
    model, _ = load(precision, offline=True)
    programs = Programs()
    base = BaseModel(model, jnp.dtype(precision), programs)
    scorer = dataclasses.replace(base.scorer(None, 0.0), share=args.part == "trees")
    encoder = Encoder(model.tokenizer)
    count = max(args.count // {"trees": 1, "packed": 4, "single": 8}[args.part], 1)
    pairs = given(args, count)

    def asked() -> dict[str, list]:
        found = {question.id: trees_of(question, mine, encoder) for question, mine in pairs}
        if args.part == "trees":
            return found
        return {name: [one for tree in trees for one in alone(tree)] for name, trees in found.items()}

    def single(trees: list) -> tuple[list[np.ndarray], int]:
        found = []
        for tree in trees:
            row = -(-tree_length(tree) // 32) * 32
            found += dataclasses.replace(scorer, row_length=row, batch_tokens=row).score([tree])
        return found, sum(-(-tree_length(tree) // 32) * 32 for tree in trees)

    start = time.perf_counter()
    by_question = asked()
    trees = [tree for mine in by_question.values() for tree in mine]
    found, computed = single(trees) if args.part == "single" else (scorer.score(trees), 0)
    seconds = time.perf_counter() - start - programs.seconds  # without compilation
    scores = iter(found)
    answers = {
        name: [
            value for tree in mine for segment, value in zip(tree, next(scores).tolist(), strict=True) if segment.scored
        ]
        for name, mine in by_question.items()
    }
    # What the host does, done once more by itself.
    start = time.perf_counter()
    trees = [tree for mine in asked().values() for tree in mine]
    trees = radix(trees)[0] if args.part == "trees" else trees
    if args.part != "single":
        passes = pack_for_reading([trees], scorer.row_length, scorer.batch_tokens, scorer.shapes)
        computed = sum(batch.tokens.size for ((batch, _),) in passes)
    host = time.perf_counter() - start
    return {
        "questions": count,
        "seconds": seconds,
        "stored": sum(map(tree_length, trees)),
        "computed": computed,
        "host": host / seconds,
        "answers": answers,
    }


def transformers(args: argparse.Namespace) -> dict[str, Any]:
    """Time batches of padded rows, sorted by length: a prompt with one of its answers each; or a prompt each, of whose
    answers only the first tokens that differ are read.
    """
    import torch
    import transformers

    torch.set_num_threads(os.cpu_count() or 1)
    transformers.utils.logging.disable_progress_bar()
    dtype = getattr(torch, (args.work / "format").read_text() if args.part == "first" else args.part)
    model = transformers.AutoModelForCausalLM.from_pretrained(args.work / "base", dtype=dtype).eval()
    prompts = json.loads((args.work / "prompts.json").read_text())
    # Each row: its question, the prompt, the texts that may follow it.
    rows: list[tuple[str, list[int], list[list[int]]]] = []
    for question, (prompt, *answers) in ((name, one) for name, mine in prompts.items() for one in mine):
        if args.part == "first":
            shared = next(n for n, tokens in enumerate(zip(*answers, strict=False)) if len(set(tokens)) > 1)
            rows.append((question, prompt + answers[0][:shared], [one[shared : shared + 1] for one in answers]))
        else:
            rows += [(question, prompt, [answer]) for answer in answers]
    lengths = [len(prompt) + len(tails[0]) - 1 for _, prompt, tails in rows]
    order = sorted(range(len(rows)), key=lambda place: lengths[place])
    size = 16

    def once(places: list[int]) -> tuple[int, dict[int, float]]:
        computed, found = 0, {}
        for first in range(0, len(places), size):
            part = places[first : first + size]
            longest, shortest = max(lengths[n] for n in part), min(lengths[n] for n in part)
            tokens = torch.zeros((len(part), longest), dtype=torch.long)
            mask = torch.zeros_like(tokens)
            for row, place in enumerate(part):
                _, prompt, tails = rows[place]
                tokens[row, : lengths[place]] = torch.tensor(prompt + tails[0][:-1])
                mask[row, : lengths[place]] = 1
            computed += tokens.numel()
            kept = max(len(rows[n][2][0]) for n in part) + longest - shortest
            logits = model(tokens, attention_mask=mask, logits_to_keep=kept).logits.float()
            for row, place in enumerate(part):
                _, prompt, tails = rows[place]
                at = len(prompt) - 1 - (longest - logits.shape[1])
                log_probs = logits[row, at : at + len(tails[0])].log_softmax(-1)
                for tail in tails:
                    found[place] = sum(log_probs[n, token].item() for n, token in enumerate(tail))
        return computed, found

    with torch.inference_mode():
        once(order[:size])
        start = time.perf_counter()
        computed, found = once(order)
        seconds = time.perf_counter() - start
    answers: dict[str, list[float]] = {}
    for place in sorted(found):
        answers.setdefault(rows[place][0], []).append(found[place])
    return {"questions": len(prompts), "seconds": seconds, "computed": computed, "answers": answers}


PARTS = {
    "prepare": prepare,
    "trees": jaxalign,
    "packed": jaxalign,
    "single": jaxalign,
    "bfloat16": transformers,
    "float32": transformers,
    "first": transformers,
}

if __name__ == "__main__":
    main()
