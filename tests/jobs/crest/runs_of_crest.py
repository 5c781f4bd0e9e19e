"""CREST on the tiny random model: the settings, and questions of one's own."""

import json
from pathlib import Path

CONF = Path(__file__).parents[2] / "conf"
"""A wording so short that a random model's rationales weigh in what it reads behind them."""

SMALL = [
    *(
        "--config-dir",
        str(CONF),
        "reasoning=short",
        "model=tiny",
        "precision=float32",
        "lora.rank=8",
        "model.config.max_position_embeddings=384",
    ),
    *("dataset.solved=4", "dataset.train=12", "dataset.validation=4", "dataset.test=4", "dataset.links=[1,2]"),
    *("dataset.reply={letter}: {text}", "sampling.max_tokens=8", "test.max_tokens=16", "training.log_every=1"),
    "sampling.rows=4",
    *("crest.samples=6", "crest.tolerance=null", "seed.epochs=1", "seed.learning_rate=0.01"),
    *("sft.epochs=3", "sft.batch_size=4", "sft.learning_rate=0.03"),
    *("dpo.steps=4", "dpo.batch_size=4", "dpo.learning_rate=0.003"),
]
"""A random model, taught just enough that it is right about some questions and wrong about others, that its follow-ups
differ, and that its answers can be read. It draws four samples together, so that calls of many sizes share programs."""

ROOMY = "model.config.max_position_embeddings=2048"
"""A context that holds the shipped worked examples, too."""

WORKED = """dataset.examples=[{question: "Who?", options: ["Al", "Bo"], rationale: "It is Al.", answer: A}]"""
"""A worked example that a small context holds, too."""

ADAPTER = "adapter/adapter_model.safetensors"
QUESTIONS = ["sun", "sea", "oak", "owl", "ice", "tin"]


def write_questions(folder: Path, split: str, texts) -> None:
    """Write ARC-like questions of three options; a text may occur twice."""
    folder.mkdir(exist_ok=True)
    rows = [
        {
            "id": f"{split}-{number}",
            "question": f"Which is a {text}?",
            "choices": {"text": [text, "nut", "bee"], "label": ["A", "B", "C"]},
            "answerKey": "ABC"[number % 3],
        }
        for number, text in enumerate(texts)
    ]
    (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
