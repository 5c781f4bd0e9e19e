"""The train job, from its configuration to its results: read, open, ask, train, ask again, report."""

import dataclasses
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from jaxalign.config.dataset import InstructionsConfig
from jaxalign.config.identity import as_dict
from jaxalign.config.train import TrainConfig
from jaxalign.data.encoding import Encoder
from jaxalign.errors import UserError, did_you_mean, shown
from jaxalign.inference.base_model import BaseModel
from jaxalign.inference.generations import PromptRequest
from jaxalign.inference.reference import REFERENCE
from jaxalign.inference.shapes import SHAPES
from jaxalign.jobs.adapters import print_other_storages
from jaxalign.jobs.model_card import model_card
from jaxalign.jobs.precision import settle_precision
from jaxalign.jobs.settings import fresh_adapter
from jaxalign.jobs.setup import open_base, open_job_run, print_places, working_together
from jaxalign.jobs.train.data import TrainingText, encode_preferences, encode_text, read_training_text, token_budget
from jaxalign.jobs.train.inspection import print_examples
from jaxalign.jobs.train.plan import print_plan
from jaxalign.jobs.train.regulariser import CHATS, held_questions
from jaxalign.jobs.train.session import TrainingSession
from jaxalign.models.adapter import Adapter
from jaxalign.models.lora import adapter_hash
from jaxalign.objectives.dpo import LOSSES
from jaxalign.parallel.compilation import forgetting_started
from jaxalign.parallel.distributed import by_first, is_first, of_first, stopping_together
from jaxalign.pretrained.peft import read_adapter, write_adapter
from jaxalign.runs.directory import Run
from jaxalign.runs.progress import duration, plain_console, say
from jaxalign.runs.records import digest
from jaxalign.training.step import OBJECTIVES
from jaxalign.training.supervised import SupervisedStage
from jaxalign.values.profile import best_constant_nmse
from jaxalign.values.tables import READINGS, hardly_learnt, profile_table, summary_lines

TRAIN_FILES = (
    *("checkpoints", "adapter", "figures", "metrics.jsonl", "validation.jsonl", "questionnaire.jsonl"),
    *(REFERENCE, SHAPES, CHATS),
)


def train(config: TrainConfig) -> None:
    """Run the train job as configured; docs/getting-started.md explains its results.

    Raises:
        UserError: the input cannot be used (raised before the training), or a loss is not a number.
    """
    with working_together(config):
        _train(config)


def _train(config: TrainConfig) -> None:
    console = plain_console()
    check_adapter_and_objective(config)
    text = read_training_text(config)
    config = settle_precision(with_target(config, text), console)
    opened = open_base(config, console)
    if opened is None:
        return
    examples = encode_text(config, text, opened.encoder, opened.context)
    if config.inspect:
        inspect(config, console, text, examples, opened.encoder)
        return
    stages = [encode_preferences(config, text, opened.encoder, opened.context)] if text.pairs else examples
    if config.training.questionnaire:
        text.questionnaire.check(opened.encoder, opened.context)
    budget = token_budget(config, opened.encoder, opened.context)
    questions = held_questions(config, text, opened.encoder)
    if config.plan:
        print_plan(config, text, opened, stages, budget, questions, console)
        return
    base = opened.load(describe=True)
    fresh = config.adapter is None
    adapter = fresh_adapter(config.lora, base.model, config.training.seed) if fresh else starting_adapter(config, base)
    print_other_storages(console, [adapter], opened.storage)
    run = open_job_run(
        config,
        console,
        content=training_content(config, text, base, adapter, budget, questions, opened.encoder),
        name=run_name(config, text),
        files=TRAIN_FILES,
    )
    if not run.finished:
        with of_first(run.locked()), stopping_together(), forgetting_started():
            session = TrainingSession(config, text, opened, base, budget, questions, run, console)
            session.compile_ahead(stages, adapter)
            readings = {} if fresh else {"base": session.ask("base", adapter.times(0.0))}
            readings["before"] = session.ask("before", adapter)
            adapter, summaries = session.train(stages, adapter)
            readings["after"] = session.ask("after", adapter)
            by_first(lambda: finish(session, adapter, readings, summaries))
    if is_first():
        report_training(console, run, control=config.alignment.shuffle_labels)


def check_adapter_and_objective(config: TrainConfig) -> None:
    """Raise UserError if the adapter to start from does not exist, or the objective is not registered."""
    if config.adapter is not None and not Path(config.adapter).is_dir():
        raise UserError(f"adapter={config.adapter} is no adapter: give a run's directory or a PEFT folder")
    name, known = config.objective.name, ["dpo", *(one for one in OBJECTIVES if one not in LOSSES)]
    if name not in known:
        raise UserError(f"objective.name={name} is not known{did_you_mean(name, known)}")


def with_target(config: TrainConfig, text: TrainingText) -> TrainConfig:
    """Return the configuration with the name and scores of a target that comes from a survey's table filled in."""
    value, target = config.value, text.target
    if value is None or target is None or value.table is None:
        return config
    return dataclasses.replace(config, value=dataclasses.replace(value, name=target.name, scores=target.by_value))


def inspect(
    config: TrainConfig, console: Console, text: TrainingText, examples: Sequence[SupervisedStage], encoder: Encoder
) -> None:
    """Print examples of each stage as the model sees them."""
    share = config.training.share_prompts and config.training.packing
    print_examples(console, text.stages, examples, encoder, config.inspect, share_prompts=share)


def starting_adapter(config: TrainConfig, base: BaseModel) -> Adapter:
    """Return the adapter that training starts from; UserError if it does not fit the base or the configuration."""
    found = read_adapter(str(config.adapter), base.model.architecture)
    found.check_base(base.model.identity, base.model.name)
    wanted = {
        "model.prompt_format": (found.prompt_format or config.model.prompt_format, config.model.prompt_format),
        "lora.rank": (found.rank, config.lora.rank),
        "lora.alpha": (found.alpha, config.lora.alpha),
        "lora.targets": (sorted(found.targets), sorted(config.lora.targets)),
    }
    others = {key: shown(theirs) for key, (theirs, ours) in wanted.items() if theirs != ours}
    layers = base.model.architecture.layers
    if found.layers != config.lora.count(layers):
        others["lora.layers"] = f"{found.layers / layers:.4g}"
    if others:
        add = " ".join(f"{key}={theirs}" for key, theirs in others.items())
        raise UserError(f"adapter={config.adapter} has another {' and '.join(others)}: add {add}")
    return dataclasses.replace(found, base_identity=base.model.identity)


def training_content(
    config: TrainConfig,
    text: TrainingText,
    base: BaseModel,
    start: Adapter,
    budget: int | None,
    questions: Sequence[PromptRequest],
    encoder: Encoder,
) -> dict[str, Any]:
    """Return hashes of what the configuration's paths lead to, for the identity of the run."""
    found: dict[str, Any] = {
        "model": base.model.signature,
        "dataset": text.fingerprint,
        **text.questionnaire.content(),
        **encoder.rendered([*text.prompts, *text.questionnaire.questions]),
    }
    if config.adapter is not None and start.params is not None:
        found["adapter"] = adapter_hash(start.params)
    if text.target is not None:
        found["target"] = [text.target.name, *text.target.scores]
    if isinstance(config.dataset, InstructionsConfig):
        found["tokens"] = budget
    if config.alignment.regulariser.weight and not text.pairs:
        texts = text.regularising
        found["plain"] = digest([texts, [one.tokens.tolist() for one in questions]] if questions else texts)
    return found


def run_name(config: TrainConfig, text: TrainingText) -> str:
    """Return the readable part of a run directory's name: the target (if any), the data set, the model and the seed."""
    what = [] if text.target is None else [text.target.name]
    return "-".join([*what, config.dataset.name, config.model.name, f"seed{config.training.seed}"])


def finish(
    session: TrainingSession,
    adapter: Adapter,
    readings: dict[str, dict[str, Any] | None],
    stages: list[dict[str, Any]],
) -> None:
    """Write the figure, the adapter with its card, and then the summary, which marks the run as finished."""
    before, after = readings["before"], readings["after"]
    config, model, run, target = session.config, session.base.model, session.run, session.text.target
    scores = None if target is None else target.by_value
    summary = {
        "value": None if target is None else target.name,
        "target": scores,
        "questionnaire": readings,
        "best_constant_nmse": None if target is None else best_constant_nmse(target.scores),
        "training": {
            "stages": stages,
            "compilation_seconds": session.base.programs.seconds,
            "held_chats": len(session.questions),
        },
        "model": {"name": model.name, "identity": model.identity, "storage": session.opened.storage},
        "attention": session.base.attention,
        "adapter": run.adapter.name,
    }
    if before is not None and after is not None:
        from jaxalign.values.figures import profile_figure  # matplotlib takes half a second, so it is imported late

        title = f"{config.model.name} · {config.dataset.name if target is None else target.name}"
        profile_figure(run.figures / "profile.png", scores, before["scores"], after["scores"], title)
    coding = None if target is None else target.coding
    notes = {"value": summary["value"], "target": scores, "coding": coding}
    opened = session.opened
    written = adapter.to_write(opened.load_name, model.identity, config.model.prompt_format, opened.storage, **notes)
    shutil.rmtree(run.adapter, ignore_errors=True)  # perhaps damaged since an earlier end of this run
    write_adapter(run.adapter, written, dropout=session.dropout, card=model_card(as_dict(config), summary))
    run.finish(summary)


HARDLY = (
    "The value was hardly learnt: a constant answer would be nearly as near to the target. Train longer "
    "(experiment=thorough), or on more arguments."
)

_STAGE: dict[str, Any] = {
    **{"name": str, "steps": int},
    **dict.fromkeys(("seconds", "tokens_per_second", "first_loss", "last_loss"), int | float),
    **dict.fromkeys(("padding_share", "shared_share"), int | float),
}
"""What the summary keeps of a stage, as far as it is printed (see `runs.expected.flaw`)."""


def report_training(console: Console, run: Run, *, control: bool) -> None:
    """Print the results of a finished run, where they are, and the next command.

    A `control` is not meant to learn its value; of any other run a line says if it hardly did.
    """
    summary = run.results(training={"stages": [_STAGE]}, **READINGS)
    for stage in summary["training"]["stages"]:
        took, speed = duration(stage["seconds"]), f"{stage['tokens_per_second']:,.0f} tokens/s"
        losses = f"loss {stage['first_loss']:.2f} → {stage['last_loss']:.2f}"
        shares = f"padding {stage['padding_share']:.0%}, shared {stage['shared_share']:.0%}"
        line = f"{stage['name']}: {stage['steps']} steps in {took}, {losses}, {speed}, {shares}"
        say(console, line)
    before, after = (summary["questionnaire"].get(when) for when in ("before", "after"))
    if before is not None and after is not None:
        console.print(profile_table(summary.get("target"), before, after))
        constant = summary.get("best_constant_nmse")
        for line in summary_lines(before, after, constant):
            console.print(line, highlight=False)
        if hardly_learnt(after, constant) and not control:
            say(console, HARDLY)
    print_places(console, adapter=run.adapter, figure=run.figures / "profile.png", summary=run.summary)
    command = shlex.join(["run=" + str(run.path), "format=peft", f"out={run.path}-peft", "verify=true"])
    say(console, f"next:    python -m jaxalign.export {command}")
