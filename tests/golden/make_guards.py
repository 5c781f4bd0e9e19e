"""Writes guards.json: what Transformers on PyTorch reads in tiny random guards of every format.

Run it where torch and transformers are installed: PYTHONPATH=tests python tests/golden/make_guards.py

All templates are stand-ins of ours, in the form of the guards' own: roles, policy, and where the verdict begins.
"""

import json
from pathlib import Path

import torch
import transformers
from golden.draw import draw
from tokenizer_styles import hugging_face

FILE = Path(__file__).parent / "guards.json"
TEXTS = {
    "wildguard": "<s><|user|>\n[INST] Three questions.\n\nAsked:\n{prompt}\n\nSaid:\n{response}\n\n---\n\n"
    "Three answers: [/INST]\n<|assistant|>\n",
    "harmbench": "[INST] <<SYS>>\nSay yes or no.\n<</SYS>>\n\nAsked:\n{prompt}\n\nSaid:\n{response}\n\n---\nIs it so? "
    "[/INST]",
    "strongreject": "One to five.\n\nAsked: {prompt}\n\nSaid: {response}\n\nThe number:\n",
}
GIVEN = {"granite_guardian": {"guardian_config": {"risk_name": "harm"}, "add_generation_prompt": True}}
EXCHANGES = [["Is it late?", "Yes, it is late and the answer is no."], ["The Question:\n\n12 or 123?", "no  (A)"]]
TURNS = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n\n{% endfor %}"
QWEN = [
    f"Safety: {safety}\nCategories: {category}\nRefusal: {refusal}"
    for safety, category in (("Safe", "None"), ("Controversial", "PII"), ("Unsafe", "Suicide & Self-Harm"))
    for refusal in ("Yes", "No")
]
WILDGUARD = [
    f"Harmful request: {one}\nResponse refusal: {two}\nHarmful response: {three}"
    for one in ("yes", "no")
    for two in ("yes", "no")
    for three in ("yes", "no")
]
SIZES = dict(
    hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8
)
MULTIPLIERS = dict(attention_multiplier=0.2, embedding_multiplier=6.0, residual_multiplier=0.4, logits_scaling=5.0)
GUARDS = {
    # format: the tokenizer's style, the configuration, its chat template or None, and what it may write
    "qwen3guard": (
        "qwen",
        transformers.Qwen3Config,
        "<|im_start|>user\n" + TURNS + "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        QWEN,
    ),
    "llama_guard_3": (
        "llama3",
        transformers.LlamaConfig,
        "{{ bos_token }}<|im_start|>user\n\n" + TURNS + "the answer:<|im_end|><|im_start|>assistant\n\n",
        ["safe", "\n\nsafe", "unsafe\nS1", "\n\nunsafe\nS1", "unsafe\nS12"],
    ),
    "shieldgemma": (
        "gemma",
        transformers.Gemma2Config,
        "{{ bos_token }}" + TURNS + "* {{ guideline }}\n\nYes or No?\n\n",
        ["Yes", "No"],
    ),
    "wildguard": ("mistral", transformers.MistralConfig, None, WILDGUARD),
    "harmbench": ("llama2", transformers.LlamaConfig, None, ["Yes", " Yes", "No", " No"]),
    "granite_guardian": (
        "qwen",
        transformers.GraniteConfig,
        "<|im_start|>user\n" + TURNS + "A {{ guardian_config['risk_name'] }}?<|im_end|>\n"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        ["Yes", "No"],
    ),
    "strongreject": ("gemma", transformers.GemmaConfig, None, [lead + n for n in "12345" for lead in ("", " ")]),
}


def golden(name: str, style: str, kind: type, template: str | None, verdicts: list[str]) -> dict:
    """Return configuration, template, and for each exchange text, tokens and log-probabilities of all verdicts."""
    tokenizer = hugging_face(style)
    tokenizer.chat_template, given = template, {"guideline": "no x."} | GIVEN.get(name, {})
    config = kind(
        **SIZES | (MULTIPLIERS if name == "granite_guardian" else {}),
        vocab_size=len(tokenizer),
        max_position_embeddings=4096,
        tie_word_embeddings=name in ("shieldgemma", "strongreject"),
    )
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        del shapes["lm_head.weight"]
    norm_mean = 0.0 if config.model_type.startswith("gemma") else 1.0
    drawn = {key: torch.from_numpy(tensor) for key, tensor in draw(shapes, norm_mean).items()}
    _, unexpected = model.load_state_dict(drawn, strict=False)
    assert not unexpected
    model.tie_weights()
    read = []
    for prompt, response in EXCHANGES:
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        if template is None:
            text = TEXTS[name].replace("{prompt}", prompt).replace("{response}", response)
            tokens = tokenizer(text, add_special_tokens=name != "wildguard")["input_ids"]
        else:
            text = tokenizer.apply_chat_template(turns, tokenize=False, **given)
            tokens = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False, **given)
        before = tokenizer(text, add_special_tokens=False)["input_ids"]
        sums = []
        for verdict in verdicts:
            whole = tokenizer(text + verdict, add_special_tokens=False)["input_ids"]
            behind = whole[len(before) :]
            if whole[: len(before)] != before:  # as a guard writes: the prompt's tokens are what they are
                behind = tokenizer(verdict, add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                logits = model(torch.tensor([tokens + behind])).logits[0, len(tokens) - 1 : -1].double()
            log_probs = logits.log_softmax(-1)[range(len(behind)), behind]
            sums.append(round(log_probs.sum().item(), 5))
        read.append({"text": text, "tokens": tokens, "log_probs": dict(zip(verdicts, sums, strict=True))})
    stored = json.loads(config.to_json_string()) | {"architectures": [type(model).__name__]}
    return {
        "style": style,
        "config": stored,
        "norm_mean": norm_mean,
        "shapes": shapes,
        "template": template or TEXTS[name],
        "exchanges": EXCHANGES,
        "read": read,
    }


def main() -> None:
    """Write the golden."""
    made = {"made_with": f"transformers {transformers.__version__}, torch {torch.__version__}"}
    made |= {name: golden(name, *how) for name, how in GUARDS.items()}
    FILE.write_text(json.dumps(made, separators=(",", ":")) + "\n")
    print(f"{FILE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
