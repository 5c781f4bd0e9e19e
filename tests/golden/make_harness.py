"""Writes harness.json: what lm-evaluation-harness's own model `hf` gives for tiny random models, number by number.

Run it where lm_eval, torch and transformers are installed: python tests/golden/make_harness.py
"""

import json
import sys
import tempfile
from pathlib import Path

import lm_eval
import torch
import transformers
from draw import draw
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

sys.path.insert(0, str(Path(__file__).parents[1]))
from tokenizer_styles import hugging_face

FILE = Path(__file__).parent / "harness.json"
CONTEXT = 40
SIZES = dict(vocab_size=512, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
LONG = "Question: is it late? The answer is (A) no... 12 " * 4
CHAT = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
TURNS = [{"role": "user", "content": "is it late"}, {"role": "assistant", "content": "The answer is "}]
PAIRS = [
    ("Question: is it late? Answer:", " yes"),
    ("Question: is it late? Answer:", " no"),
    ("Question: is it late? Answer:", " the answer is no"),
    ("Question: is it late? Answer: ", "yes"),
    ("Question: is it late? Answer:  ", "yes"),
    ("Question: is it late?\nAnswer:\n", "A"),
    ("Question: is it late?\n\n", "(A) no"),
    ("Question \n \n", "yes"),
    ("Answer: (", "A)"),
    ("Answer:", "yes it is"),
    ("1", "23 and 12"),
    ("The answer is", "n't here"),
    ("<s>Question: it is", " late"),
    ("", "yes it is"),
    ("", " yes"),
    ("", "<s>yes it is"),
    ("日本 it is", " 日本"),
    (LONG, " yes it is"),
    ("it", LONG[:60]),
]
ROLLING = ["yes", "Question: is it late?\nAnswer:\n\n", "<s>it is late", LONG, LONG[:80], ""]
GENERATED = [
    ("Question: is it late? Answer:", {"until": [" the"], "max_gen_toks": 8, "do_sample": False}),
    ("Question: is it late? Answer: ", {"until": [], "max_new_tokens": 6}),
    (LONG, {"until": ["."], "max_gen_toks": 5}),
    ("<s>it is late", {"until": ["zzz"], "max_gen_toks": 12, "temperature": 0.0}),
]


def golden(style: str, folder: str) -> dict:
    """Return the model of a tokenizer's style, and what `hf` says with it."""
    tokenizer = hugging_face(style)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    config = transformers.LlamaConfig(
        **SIZES, num_key_value_heads=2, max_position_embeddings=CONTEXT, tie_word_embeddings=False, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).float().eval()
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    model.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in draw(shapes, 1.0).items()})
    model.save_pretrained(folder)
    hf = HFLM(pretrained=folder, dtype="float32", batch_size=1, device="cpu")
    pairs = list(PAIRS)
    for number in range(60):  # what greedy decoding writes, as far as it is encoded as it is decoded
        context = f"Question: it is {number}"
        with torch.no_grad():
            best = int(model(torch.tensor([hf.tok_encode(context)])).logits[0, -1].argmax())
        if hf._encode_pair(context, tokenizer.decode([best]))[1] == [best]:
            pairs.append((context, tokenizer.decode([best])))

    # Where nothing is left of the continuation, `hf` fails (and ours says so in a line).
    pairs = [pair for pair in pairs if not pair[0] or hf._encode_pair(*pair)[1]]

    def asked(kind: str, arguments: list) -> list[Instance]:
        return [Instance(kind, {}, one, number) for number, one in enumerate(arguments)]

    (text,) = hf.generate_until(asked("generate_until", GENERATED[-1:]))
    letter = next(character for character in text if character.isascii())
    generated = [*GENERATED, (GENERATED[-1][0], {"until": letter, "max_gen_toks": 12})]
    scores = hf.loglikelihood(asked("loglikelihood", pairs))
    rolling = hf.loglikelihood_rolling(asked("loglikelihood_rolling", [(text,) for text in ROLLING]))
    return {
        "config": json.loads(config.to_json_string()) | {"architectures": ["LlamaForCausalLM"]},
        "shapes": shapes,
        "loglikelihood": [
            [*pair, round(score, 5), greedy] for pair, (score, greedy) in zip(pairs, scores, strict=True)
        ],
        "rolling": [[text, round(score, 5)] for text, score in zip(ROLLING, rolling, strict=True)],
        "generated": [
            [context, settings, hf.generate_until(asked("generate_until", [(context, settings)]))[0]]
            for context, settings in generated
        ],
        "chat": hf.apply_chat_template(TURNS[:1]),
        "continued": hf.apply_chat_template(TURNS, add_generation_prompt=False),
    }


def main() -> None:
    """Write the golden."""
    found = {"made_with": f"lm_eval {lm_eval.__version__}, transformers {transformers.__version__}"}
    found |= {"template": CHAT, "turns": TURNS}
    for style in ("gpt2", "llama2"):
        with tempfile.TemporaryDirectory() as folder:
            found[style] = golden(style, folder)
    FILE.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
