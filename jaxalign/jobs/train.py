"""The main job from its configuration to its results: read, load, ask, train, ask again, report."""

import dataclasses
import hashlib
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console

from jaxalign.config import schema
from jaxalign.config.identity import identity, plain, readable_name
from jaxalign.config.train import TrainConfig
from jaxalign.data.encoding import Encoder
from jaxalign.errors import UserError
from jaxalign.inference.base_model import ROW_LENGTH
from jaxalign.inference.reference import read_reference
from jaxalign.inference.scorer import Scorer
from jaxalign.jobs.inspection import print_examples
from jaxalign.jobs.model_card import model_card
from jaxalign.jobs.train_data import (
    CONTROL_LENGTH,
    Material,
    control_budget,
    encode_pairs,
    encode_stages,
    read_material,
)
from jaxalign.models.layout import BaseWeights
from jaxalign.models.lora import LoraParams, adapter_hash, init_adapter
from jaxalign.models.transformer import Transformer
from jaxalign.parallel.compilation import Programs, use_compilation_cache
from jaxalign.pretrained.peft import AdapterFile, read_adapter, write_adapter
from jaxalign.pretrained.sources import Model, cache_folder, open_model, prefetch, source_of
from jaxalign.runs.directory import Run, open_run
from jaxalign.runs.progress import Progress, compilations, duration
from jaxalign.runs.records import append_record, read_records
from jaxalign.training.feed import Stage, StageSettings
from jaxalign.training.loop import fit, resume_point
from jaxalign.training.optimizer import Hyperparameters
from jaxalign.training.preference import PreferenceStage
from jaxalign.values.profile import best_constant_nmse
from jaxalign.values.questionnaire import check_questions, read_by_likelihood
from jaxalign.values.schwartz import VALUES
from jaxalign.values.tables import profile_table, summary_lines


def train(config: TrainConfig) -> None:
    """Run the main job as configured; see docs/getting-started.md for what it leaves behind.

    Raises:
        UserError: anything in the input that cannot be used, before the training.
    """
    console = Console()
    source = source_of(dataclasses.asdict(config.model))
    if config.adapter is not None and not Path(config.adapter).is_dir():
        raise UserError(f"adapter={config.adapter} is no adapter: give a run's directory or a PEFT folder")
    material = read_material(config)
    if config.prefetch:
        console.print(prefetch(source, offline=config.offline), highlight=False, soft_wrap=True)
        return
    use_compilation_cache(cache_folder() / "xla")
    files = open_model(source, offline=config.offline, name=config.model.name)
    encoder = Encoder(files.tokenizer, config.model.prompt_format, config.model.system)
    context = files.architecture.context
    length = context if material.target is not None else min(context, CONTROL_LENGTH)
    stages = encode_stages(material.stages, encoder, length, config.released.length_128 and material.target is not None)
    preferences = encode_preferences(config, material, encoder, context) if material.pairs else None
    if config.inspect and preferences is not None:
        raise UserError("inspect shows supervised examples, and dataset=pairs has none: leave it out")
    if config.inspect:
        print_examples(
            console,
            material.stages,
            stages,
            files.tokenizer,
            config.inspect,
            share_prompts=config.training.share_prompts and config.training.packing,
        )
        return
    if config.training.questionnaire:
        check_questions(material.portraits, material.prompts, encoder, context)
    dtype = jnp.dtype(config.precision)
    model = files.load(dtype)
    start = None if config.adapter is None else starting_adapter(config, model)
    budget = control_budget(config, encoder, context)
    run = open_run(
        identity(config, fingerprints(config, model, material, start, budget)),
        plain(config),
        dir=config.run.dir,
        root=config.run.root,
        name=readable_name(config),
        overwrite=config.run.overwrite,
    )
    if run.finished:
        console.print(f"this run is done: {run.path} (run.overwrite=true runs it again)", soft_wrap=True)
        report(console, run)
        return
    with run.locked():
        console.print(f"run directory: {run.path}", soft_wrap=True)
        programs = Programs(compilations(console))
        session = Session(config, model, material, encoder, budget, run, programs, console)
        adapter = fresh_adapter(config, model) if start is None else jax.tree.map(jnp.asarray, start.adapter)
        readings = {}
        if start is not None:  # then "before" is the starting adapter's, and the bare base stands beside it
            readings["base"] = session.ask("base", adapter, scale=0.0)
        readings["before"] = session.ask("before", adapter)
        if preferences is not None:
            adapter, summaries = session.train_stages([session.with_reference(preferences, adapter)], adapter)
        else:
            adapter, summaries = session.train_stages(stages, adapter)
        readings["after"] = session.ask("after", adapter)
        finish(session, adapter, readings, summaries)
    report(console, run)


def starting_adapter(config: TrainConfig, model: Model) -> AdapterFile:
    """Read the adapter that training starts from, and check that it belongs to this base and this recipe."""
    found = read_adapter(Path(str(config.adapter)), model.architecture)
    if found.base_identity is not None and found.base_identity != model.identity:
        raise UserError(
            f"adapter={config.adapter} was trained on another base ({found.base_name}), not on {model.name}; "
            "choose the model that it was trained on"
        )
    wanted = {
        "model.prompt_format": (found.prompt_format or config.model.prompt_format, config.model.prompt_format),
        "lora.rank": (found.rank, config.lora.rank),
        "lora.alpha": (found.alpha, config.lora.alpha),
        "lora.targets": (sorted(found.targets), sorted(config.lora.targets)),
    }
    others = {key: schema.shown(theirs) for key, (theirs, ours) in wanted.items() if theirs != ours}
    if others:
        add = " ".join(f"{key}={theirs}" for key, theirs in others.items())
        raise UserError(f"adapter={config.adapter} has another {' and '.join(others)}: add {add}")
    return found


def encode_preferences(config: TrainConfig, material: Material, encoder: Encoder, context: int) -> PreferenceStage:
    """Return the pairs as a stage."""
    return encode_pairs(
        material.pairs,
        encoder,
        context,
        seed=config.training.seed,
        fraction=config.alignment.validation_fraction,
        loss=config.objective.loss,
        grouped=config.objective.batching == "grouped",
    )


def fresh_adapter(config: TrainConfig, model: Model) -> LoraParams:
    """Return a new adapter, drawn from the seed."""
    key = jax.random.key(config.training.seed)
    return init_adapter(key, model.architecture, config.lora.rank, config.lora.targets)


def fingerprints(
    config: TrainConfig, model: Model, material: Material, start: AdapterFile | None, budget: int | None
) -> dict[str, str]:
    """Return what stands in a run's identity for the content that paths lead to."""
    found = {"model": model.signature, "dataset": material.fingerprint}
    if start is not None:
        found["adapter"] = adapter_hash(start.adapter)
    items = [(portrait.number, portrait.value, portrait.text) for portrait in material.portraits]
    found["benchmark.portraits"] = hashlib.sha256(json.dumps(items).encode()).hexdigest()[:16]
    if config.dataset.kind == "instructions":
        found["dataset.match"] = str(budget)
    return found


@dataclasses.dataclass
class Session:
    """What the parts of one run share."""

    config: TrainConfig
    model: Model
    material: Material
    encoder: Encoder
    budget: int | None
    run: Run
    programs: Programs
    console: Console

    def network(self) -> Transformer:
        """Return the decoder as configured."""
        dtype = jnp.dtype(self.config.precision)
        return Transformer(self.model.architecture, dtype, self.config.training.rematerialisation)

    @property
    def weights(self) -> BaseWeights:
        """The base's weights, as a scorer takes them."""
        return BaseWeights(self.model.params, self.model.architecture.tied)

    @property
    def scale(self) -> float:
        """The adapter's scale, alpha / rank."""
        return self.config.lora.alpha / self.config.lora.rank

    @property
    def dropout(self) -> float:
        """The adapter's dropout in training: none with preferences, whose two sides are to be compared."""
        return 0.0 if self.config.objective.name == "dpo" else self.config.lora.dropout

    @property
    def row_length(self) -> int:
        """Tokens of the longest packed row."""
        return self.config.training.row_length or min(self.model.architecture.context, ROW_LENGTH)

    def ask(self, when: str, adapter: LoraParams, scale: float | None = None) -> dict[str, Any] | None:
        """Ask the questionnaire and measure perplexity; an answer that this run already has is read, not asked anew.

        `scale` is the adapter's (None: alpha / rank; 0: the bare base). Returns None where nothing is to be asked.
        """
        if not self.config.training.questionnaire:
            return None
        path = self.run.questionnaire
        for record in read_records(path):
            if record["when"] == when:
                return record["results"]
        scale = self.scale if scale is None else scale
        scorer = Scorer(self.network(), self.weights, adapter, scale, self.programs, self.row_length)
        context = self.model.architecture.context
        target = None if self.material.target is None else self.material.target.scores
        m = self.material
        with Progress(self.console) as progress:
            (results,) = read_by_likelihood(
                scorer,
                self.encoder,
                m.portraits,
                m.prompts,
                m.choice,
                m.plain,
                context,
                target,
                progress.samples(f"questionnaire {when}", "question"),
            )
        append_record(path, {"when": when, "results": results})
        return results

    def with_reference(self, stage: PreferenceStage, adapter: LoraParams) -> PreferenceStage:
        """Return a stage of pairs with the log-probabilities of the adapter that it starts from."""
        scorer = Scorer(self.network(), self.weights, adapter, self.scale, self.programs, self.row_length)
        with Progress(self.console) as progress:
            reference = read_reference(
                scorer,
                stage.data,
                range(len(stage.data.responses)),
                self.run.path / "reference.jsonl",
                model=f"{self.model.signature}-{self.config.precision}",
                progress=progress.samples("reference", "prompt"),
            )
        return dataclasses.replace(stage, data=dataclasses.replace(stage.data, reference=reference))

    def train_stages(self, stages: Sequence[Stage], adapter: LoraParams) -> tuple[LoraParams, list[dict[str, Any]]]:
        """Train every stage, each from the adapter of the one before; go on from the newest checkpoint."""
        summaries: list[dict[str, Any]] = []
        point = resume_point(self.run, adapter, self.config.optimizer.name, self.console.print)
        if point is not None:
            self.console.print(f"resuming stage {point[1].stage} after step {point[1].step}", highlight=False)
            summaries = point[2]["stages"]
        with Progress(self.console) as progress:
            for number, data in enumerate(stages):
                if number < len(summaries):
                    continue
                resume = (point[0], point[1]) if point is not None and point[1].stage == data.name else None
                adapter, summary = fit(
                    self.network(),
                    self.model.params,
                    adapter,
                    data,
                    self.settings(data.name),
                    run=self.run,
                    prefix=f"{number + 1}-{data.name}",
                    programs=self.programs,
                    extra={"stages": list(summaries)},
                    resume=resume,
                    on_stage=progress.stage,
                    on_step=lambda step, loss, speed: progress.update(step, loss=loss, tokens_per_second=speed),
                )
                summaries.append(summary)
        return adapter, summaries

    def settings(self, stage: str) -> StageSettings:
        """Return how a stage is run."""
        t, o = self.config.training, self.config.optimizer
        epochs = t.epochs
        if stage == "arguments":
            epochs = self.config.alignment.argument_epochs or epochs
        elif stage == "instructions" and self.config.released.unmatched_budget:
            epochs = 1
        return StageSettings(
            epochs=epochs,
            max_steps=t.max_steps,
            max_tokens=self.budget,
            batch_size=t.batch_size,
            seed=t.seed,
            log_every=t.log_every,
            checkpoint_every=t.checkpoint_every,
            keep_checkpoints=t.keep_checkpoints,
            row_length=self.row_length,
            max_rows=t.max_rows,
            packing=t.packing,
            share_prompts=t.share_prompts,
            validate=t.validate,
            optimizer=o.name,
            schedule=o.schedule,
            warmup_steps=o.warmup_steps,
            hyper=Hyperparameters(
                learning_rate=o.learning_rate,
                b1=o.betas[0],
                b2=o.betas[1],
                eps=o.epsilon,
                weight_decay=o.weight_decay,
                clip=float("inf") if o.clip is None else o.clip,
                scale=self.scale,
                dropout=self.dropout,
                beta=self.config.objective.beta,
                label_smoothing=self.config.objective.label_smoothing,
                likelihood=self.config.objective.likelihood,
            ),
        )


def finish(
    session: Session,
    adapter: LoraParams,
    readings: dict[str, dict[str, Any] | None],
    stages: list[dict[str, Any]],
) -> None:
    """Write the figure, the adapter with its card, and last the summary, which marks the run as done."""
    before, after = readings["before"], readings["after"]
    config, model, run, target = session.config, session.model, session.run, session.material.target
    scores = None if target is None else dict(zip(VALUES, target.scores, strict=True))
    summary = {
        "value": None if target is None else target.name,
        "target": scores,
        "questionnaire": readings,
        "best_constant_nmse": None if target is None else best_constant_nmse(target.scores),
        "training": {"stages": stages, "compilation_seconds": session.programs.seconds},
        "model": {"name": model.name, "identity": model.identity},
        "adapter": str(run.adapter),
    }
    if before is not None and after is not None:
        from jaxalign.values.figures import profile_figure  # half a second of matplotlib, at the end

        title = f"{config.model.name} · {config.dataset.name if target is None else target.name}"
        profile_figure(run.figures / "profile.png", scores, before["scores"], after["scores"], title)
    write_adapter(
        run.adapter,
        jax.device_get(adapter),
        architecture=model.architecture,
        rank=config.lora.rank,
        alpha=config.lora.alpha,
        dropout=session.dropout,
        base_name=config.model.path or config.model.name,
        base_identity=model.identity,
        prompt_format=config.model.prompt_format,
        card=model_card(plain(config), summary),
        extra={
            "value": summary["value"],
            "target": scores,
            "coding": None if config.value is None else config.value.survey_coding(config.released.raw_coding),
        },
    )
    run.finish(summary)


def report(console: Console, run: Run) -> None:
    """Print a finished run's results, where they are, and what to type next."""
    summary = json.loads(run.summary.read_text())
    for stage in summary["training"]["stages"]:
        took, speed = duration(stage["seconds"]), f"{stage['tokens_per_second']:,.0f} tokens/s"
        losses = f"loss {stage['first_loss']:.2f} → {stage['last_loss']:.2f}"
        shares = f"padding {stage['padding_share']:.0%}, shared {stage['shared_share']:.0%}"
        line = f"{stage['name']}: {stage['steps']} steps in {took}, {losses}, {speed}, {shares}"
        console.print(line, highlight=False, soft_wrap=True)
    answers = summary["questionnaire"]
    if answers["before"] is not None:
        console.print(profile_table(summary["target"], answers["before"], answers["after"]))
        for line in summary_lines(answers["before"], answers["after"], summary["best_constant_nmse"]):
            console.print(line, highlight=False)
    where = [("adapter", run.adapter), ("figure", run.figures / "profile.png"), ("summary", run.summary)]
    for name, path in where:
        if path.exists():
            console.print(f"{name + ':':9}{path}", highlight=False, soft_wrap=True)
    command = shlex.join(["run=" + str(run.path), "format=peft", f"out={run.path}-peft", "verify=true"])
    command = f"python -m jaxalign.export {command}"
    console.print(f"next:    {command}", highlight=False, soft_wrap=True)
