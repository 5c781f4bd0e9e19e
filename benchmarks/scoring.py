"""Reading CREST's answers and follow-ups: trees against prompt by prompt, here and in Transformers. See README.md.

This process only starts others, one after another.
"""

import argparse
import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sampling import load

CONTENDERS = {
    "trees": "jaxalign, trees",
    "repeated": "jaxalign, a forward pass for each prompt",
    "bfloat16": "Transformers in batches, bf16",
    "float32": "Transformers in batches, float32",
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
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        raise SystemExit(f"error: {' and '.join(missing)} not installed: type pip install '.[bench]' and run again")
    with tempfile.TemporaryDirectory(prefix="jaxalign-bench-") as folder:
        facts = child("prepare", Path(folder))
        results = {name: child(name, Path(folder)) for name in CONTENDERS}
    report(args, facts, results)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=Path, help="a JSON Lines file in the schema of ARC (default: generated)")
    parser.add_argument("--count", type=int, default=200, help="questions (default: 200)")
    parser.add_argument("--rationales", type=int, default=16, help="rationales of each (default: 16)")
    parser.add_argument("--slow", type=int, default=24, help="questions that Transformers reads (default: 24)")
    parser.add_argument("--contender", dest="part", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if min(args.count, args.rationales, args.slow) < 1:
        parser.error("--count, --rationales and --slow must be at least 1")
    return args


def child(name: str, work: Path) -> dict[str, Any]:
    """Run one part in a process of its own; return what it prints last."""
    print(f"running: {CONTENDERS.get(name, name)}", file=sys.stderr, flush=True)
    command = [sys.executable, __file__, *sys.argv[1:], "--contender", name, "--work", str(work)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    return json.loads(done.stdout.splitlines()[-1])


def report(args: argparse.Namespace, facts: dict[str, Any], results: dict[str, dict[str, Any]]) -> None:
    each = f"{max(args.count // 4, 1)} of them prompt by prompt, {args.slow} by Transformers"
    print(f"\n{args.count} questions ({each}),")
    print(f"{args.rationales} rationales of each ({facts['tokens']:.0f} tokens in the mean),")
    print(f"{facts['right']:.0%} of them with follow-ups; SmolLM2-135M, {os.cpu_count()} cores\n")
    print(f"{'':44}{'questions/s':>12}{'tokens a question':>20}{'tokens/s':>10}")
    speeds = {}
    for name, title in CONTENDERS.items():
        found = results[name]
        speeds[name] = found["questions"] / found["seconds"]
        each = found["computed"] / found["questions"]
        print(f"{title:44}{speeds[name]:12.3f}{each:20,.0f}{found['computed'] / found['seconds']:10,.0f}")
    tree, other = results["trees"], results["repeated"]
    tokens = (other["computed"] / other["questions"]) / (tree["computed"] / tree["questions"])
    worst = max(abs(a - b) for a, b in zip(tree["answers"], results["float32"]["answers"], strict=False))
    print(f"\nthe tokens alone would allow {tokens:.2f} times the speed of prompt by prompt")
    print(
        f"of jaxalign's tokens on trees {tree['padding']:.0%} are padding or trunks again; {tree['host']:.0%} of its "
        "time is making and reading batches on the host; "
        f"its repeated form: {other['padding']:.0%} and {other['host']:.0%}"
    )
    print(f"largest difference of a log-probability from Transformers in float32 (ours is bf16): {worst:.3f}")
    best = max(speeds["bfloat16"], speeds["float32"])
    print(f"scoring={speeds['trees'] / speeds['repeated']:.2f} scoring_hf={speeds['trees'] / best:.2f}")


# The children


def prepare(args: argparse.Namespace) -> dict[str, Any]:
    """Write the questions, their rationales as text, which have follow-ups, and the model as a Hugging Face folder."""
    import numpy as np

    from jaxalign.data.datasets.puzzles import make_puzzles
    from jaxalign.data.datasets.questions import Question
    from jaxalign.data.datasets.starter import load_starter
    from jaxalign.models.gguf import GgufFile
    from jaxalign.models.safetensors import write_safetensors
    from jaxalign.models.sources import fetch
    from jaxalign.models.weights import hf_tensors

    if args.questions is None:
        made = make_puzzles(train=args.count, validation=1, test=1, links=(3,)).train
        questions = [dataclasses.asdict(question) for question in made]
    else:
        rows = [json.loads(line) for line in args.questions.read_text().splitlines()[: args.count]]
        questions = [
            dataclasses.asdict(
                Question(
                    row["id"],
                    row["question"],
                    tuple(row["choices"]["text"]),
                    row["choices"]["label"].index(row["answerKey"]),
                )
            )
            for row in rows
        ]
    if len(questions) < args.count:
        raise SystemExit(f"error: {args.questions} holds {len(questions)} questions, and --count={args.count}")
    model, source = load(offline=False)
    random = np.random.default_rng(0)
    words = " ".join(argument.premise for argument in load_starter()).split()
    rationales, right, tokens = [], [], []
    for _ in questions:
        mine = []
        for _ in range(args.rationales):
            length = round(float(np.interp(random.random(), *LENGTHS)) / TOKENS_A_WORD)
            start = int(random.integers(len(words) - length))
            mine.append(" ".join(words[start : start + length]) + ".")
            tokens.append(len(model.tokenizer.encode(mine[-1])))
        rationales.append(mine)
        right.append([bool(random.random() < 0.5) for _ in mine])
    given = {"questions": questions, "rationales": rationales, "right": right}
    (args.work / "given.json").write_text(json.dumps(given))
    base = args.work / "base"
    base.mkdir()
    write_safetensors(base / "model.safetensors", dict(hf_tensors(model.architecture, model.params)), {"format": "pt"})
    (base / "config.json").write_text(json.dumps(GgufFile(fetch(source, offline=True)).config()))
    encoded = [[one.tolist() for one in parts] for parts in prompts_of(args, model.tokenizer)]
    (args.work / "prompts.json").write_text(json.dumps(encoded))
    return {"tokens": float(np.mean(tokens)), "right": float(np.mean(right))}


def given(args: argparse.Namespace) -> tuple[list, list, list]:
    """Return the questions, their rationales, and which have follow-ups."""
    from jaxalign.data.datasets.questions import Question
    from jaxalign.reasoning.rationales import Rationale

    found = json.loads((args.work / "given.json").read_text())
    questions = [Question(**{**one, "options": tuple(one["options"])}) for one in found["questions"]]
    rationales = [
        [
            Rationale(question.id, text, 1, (), question.gold if right else None, right)
            for text, right in zip(texts, rights, strict=True)
        ]
        for question, texts, rights in zip(questions, found["rationales"], found["right"], strict=True)
    ]
    return questions, rationales, found["right"]


def wording() -> Any:
    import yaml

    from jaxalign.cli import CONF
    from jaxalign.reasoning.wording import make_wording

    texts = yaml.safe_load((CONF / "reasoning" / "default.yaml").read_text())
    # Completions of one token each, so that Transformers too reads all of a prompt's from one forward pass.
    return make_wording(texts | {"affirm": " right", "deny": " wrong"}, "{letter}", [])


def trees_of(question: Any, mine: list, encoder: Any) -> list:
    """Return all trees of one question: its answers', and its follow-ups' about the rationales that have them."""
    from jaxalign.reasoning.followups import followup_trees
    from jaxalign.reasoning.rationales import answer_tree

    texts = wording()
    answers, _ = answer_tree(question, mine, encoder, texts)
    asked = [one for one in mine if one.right]
    return [answers, *(followup_trees(question, asked, encoder, texts)[0] if asked else [])]


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


def prompts_of(args: argparse.Namespace, tokenizer: Any) -> list:
    """Return of the first questions' prompts (prompt, its answers...), for a program that knows no trees."""
    import numpy as np

    from jaxalign.data.encoding import Encoder

    questions, rationales, _ = given(args)
    found = []
    for question, mine in list(zip(questions, rationales, strict=True))[: args.slow]:
        for tree in trees_of(question, mine, Encoder(tokenizer)):
            for one in alone(tree):
                prompt = np.concatenate([segment.tokens for segment in one if not segment.scored])
                found.append([prompt, *(segment.tokens for segment in one if segment.scored)])
    return found


def jaxalign(args: argparse.Namespace) -> dict[str, Any]:
    """Time the scorer, on trees or on each prompt alone."""
    import jax.numpy as jnp
    import numpy as np

    from jaxalign.data.encoding import Encoder
    from jaxalign.inference.base import Base
    from jaxalign.inference.scorer import pack_for_reading
    from jaxalign.training.programs import Programs, use_compilation_cache

    use_compilation_cache(args.work / "xla")
    model, _ = load(offline=True)
    programs = Programs()
    scorer = Base(model, jnp.bfloat16, programs).scorer(None, 0.0)
    encoder = Encoder(model.tokenizer)
    questions, rationales, _ = given(args)
    count = args.count if args.part == "trees" else max(args.count // 4, 1)
    pairs = list(zip(questions, rationales, strict=True))[:count]
    if args.part == "repeated":
        scorer = dataclasses.replace(scorer, share=False)

    def once() -> list[np.ndarray]:
        trees = [tree for question, mine in pairs for tree in trees_of(question, mine, encoder)]
        if args.part == "repeated":
            trees = [one for tree in trees for one in alone(tree)]
        return scorer.score(trees)

    start = time.perf_counter()
    found = once()
    seconds = time.perf_counter() - start - programs.seconds  # without compilation
    # What the host does, done once more by itself.
    from jaxalign.data.trees import radix

    start = time.perf_counter()
    trees = [tree for question, mine in pairs for tree in trees_of(question, mine, encoder)]
    trees = radix(trees)[0] if args.part == "trees" else [one for tree in trees for one in alone(tree)]
    passes = pack_for_reading([trees], scorer.row_length, scorer.batch_tokens, scorer.shapes)
    host = time.perf_counter() - start
    stored = sum(len(segment.tokens) for tree in trees for segment in tree)
    computed = sum(batch.tokens.size for ((batch, _),) in passes)
    answers = [value for scores in found[:1] for value in scores[scores != 0].tolist()]
    return {
        "questions": count,
        "seconds": seconds,
        "computed": computed,
        "padding": 1 - stored / computed,
        "host": host / seconds,
        "answers": answers,
    }


def transformers(args: argparse.Namespace) -> dict[str, Any]:
    """Time batches of padded prompts, sorted by length; all answers of one token are read from one forward pass."""
    import torch
    import transformers

    torch.set_num_threads(os.cpu_count() or 1)
    transformers.utils.logging.disable_progress_bar()
    dtype = {"bfloat16": torch.bfloat16, "float32": torch.float32}[args.part]
    model = transformers.AutoModelForCausalLM.from_pretrained(args.work / "base", dtype=dtype).eval()
    prompts = json.loads((args.work / "prompts.json").read_text())
    # Answers of several tokens differ in their last ones at most: what they begin with alike belongs to the prompt.
    rows = []
    for number, (prompt, *answers) in enumerate(prompts):
        shared = 0
        while all(len(one) > shared + 1 and one[shared] == answers[0][shared] for one in answers):
            shared += 1
        tails = [one[shared:] for one in answers]
        longest = max(map(len, tails))
        if longest == 1:
            rows.append((number, prompt + answers[0][:shared], [[tail] for tail in tails], True))
        else:  # one row for each answer
            rows += [(number, prompt + answers[0][:shared], [[tail]], False) for tail in tails]
    order = sorted(range(len(rows)), key=lambda place: len(rows[place][1]) + len(rows[place][2][0][0]))
    size = 16

    def once(places: list[int]) -> tuple[int, list[float]]:
        computed, found = 0, {}
        for first in range(0, len(places), size):
            part = [rows[place] for place in places[first : first + size]]
            texts = [prompt + ([] if together else tails[0][0][:-1]) for _, prompt, tails, together in part]
            longest = max(map(len, texts))
            tokens = torch.zeros((len(part), longest), dtype=torch.long)
            mask = torch.zeros_like(tokens)
            for row, text in enumerate(texts):
                tokens[row, : len(text)] = torch.tensor(text)
                mask[row, : len(text)] = 1
            computed += tokens.numel()
            kept = max(len(tails[0][0]) for _, _, tails, _ in part) + longest - min(map(len, texts))
            logits = model(tokens, attention_mask=mask, logits_to_keep=kept).logits.float()
            offset = longest - logits.shape[1]
            for row, (number, prompt, tails, together) in enumerate(part):
                at = len(prompt) - 1 - offset
                if together:
                    log_probs = logits[row, at].log_softmax(-1)
                    found.setdefault(number, []).extend(log_probs[tail[0][0]].item() for tail in tails)
                else:
                    tail = tails[0][0]
                    log_probs = logits[row, at : at + len(tail)].log_softmax(-1)
                    found.setdefault(number, []).append(sum(log_probs[n, t].item() for n, t in enumerate(tail)))
        return computed, found.get(0, [])

    with torch.inference_mode():
        once(order[:size])
        start = time.perf_counter()
        computed, answers = once(order)
        seconds = time.perf_counter() - start
    return {"questions": min(args.slow, args.count), "seconds": seconds, "computed": computed, "answers": answers}


PARTS = {
    "prepare": prepare,
    "trees": jaxalign,
    "repeated": jaxalign,
    "bfloat16": transformers,
    "float32": transformers,
}

if __name__ == "__main__":
    main()
