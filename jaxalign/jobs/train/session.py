"""One training: its text, model and run, and the work on them: ask, prepare the regulariser, train."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from rich.console import Console

from jaxalign.config.train import TrainConfig
from jaxalign.inference.base_model import BaseModel
from jaxalign.inference.generations import PromptRequest
from jaxalign.inference.reference import REFERENCE, read_reference
from jaxalign.jobs.settings import stage_settings
from jaxalign.jobs.setup import OpenedModel
from jaxalign.jobs.train.data import TrainingText
from jaxalign.jobs.train.regulariser import CHATS, answered_by_base, regularising_texts
from jaxalign.models.adapter import Adapter
from jaxalign.parallel.distributed import stoppable
from jaxalign.parallel.processor import on_cpu
from jaxalign.runs.config_file import owner
from jaxalign.runs.directory import Run
from jaxalign.runs.progress import Progress
from jaxalign.runs.records import append_record, digest, read_records
from jaxalign.training.checkpoint import newest_meta
from jaxalign.training.feed import Stage, StageSettings
from jaxalign.training.planning import compile_ahead
from jaxalign.training.preference import PreferenceStage
from jaxalign.training.regularising_texts import RegularisingTexts
from jaxalign.training.stage import Trainer
from jaxalign.values.questionnaire import QuestionnaireTrees, questionnaire_trees, reading_of, score_questionnaire
from jaxalign.values.tables import READING

_READ_BEFORE: dict[str, list[np.ndarray]] = {}
"""The scores of models before their training, by what was read. They are kept because jobs of a sweep need the same."""


@dataclasses.dataclass(frozen=True)
class TrainingSession:
    """The text, the model and the run of one training.

    `budget` is the number of tokens that a benign control trains on, or None for other data. `questions` are those
    whose answers by the base hold the training near it.
    """

    config: TrainConfig
    text: TrainingText
    opened: OpenedModel
    base: BaseModel
    budget: int | None
    questions: list[PromptRequest]
    run: Run
    console: Console

    @property
    def dropout(self) -> float:
        """The adapter's dropout rate: 0 for preferences, because the two sides of a pair must be comparable."""
        return 0.0 if self.text.pairs else self.config.lora.dropout

    def ask(self, when: str, adapter: Adapter) -> dict[str, Any] | None:
        """Ask the questionnaire and measure perplexity; return the reading, or None if the questionnaire is off.

        `when` names the reading. If the run already has it, it is read and not asked again.
        """
        if not self.config.training.questionnaire:
            return None
        for record in read_records(self.run.questionnaire, when=str, results=READING):
            if record["when"] == when:
                return record["results"]
        target = None if self.text.target is None else self.text.target.scores
        trees = questionnaire_trees(self.opened.encoder, self.text.questionnaire, self.opened.context)
        results = reading_of(self._scores(when, adapter, trees), trees, self.text.questionnaire.portraits, target)
        append_record(self.run.questionnaire, {"when": when, "results": results})
        return results

    def _scores(self, when: str, adapter: Adapter, trees: QuestionnaireTrees) -> list[np.ndarray]:
        """Return the scores of the questionnaire's trees; those of a model before its training are read only once."""
        if when == "after":
            return self._read(when, adapter, trees)
        base, row_length = self.base, self.config.training.row_length
        content = [[(segment.tokens.tolist(), *segment[1:]) for segment in tree] for tree in trees.all_trees]
        key = digest([base.signature, base.attention, row_length, adapter.identity, content])
        if key not in _READ_BEFORE:
            _READ_BEFORE[key] = self._read(when, adapter, trees)
        return _READ_BEFORE[key]

    def _read(self, when: str, adapter: Adapter, trees: QuestionnaireTrees) -> list[np.ndarray]:
        scorer = self.base.scorer(adapter.params, adapter.scale, self.config.training.row_length)
        with Progress(self.console) as progress:
            count = stoppable(progress.samples(f"questionnaire {when}", "question"))
            (scores,) = score_questionnaire(scorer, trees, count)
        return scores

    def compile_ahead(self, stages: Sequence[Stage], adapter: Adapter) -> None:
        """Begin to compile the first step of each stage, while the base is asked; a CPU has no cores to spare for it.

        A run that goes on has its programs in the cache, and perhaps stages that are done.
        """
        fresh = newest_meta(self.run.checkpoints, lambda line: None, owner(self.run.path)) is None
        if fresh and not on_cpu() and adapter.params is not None:
            network, params = self.base.network(self.config.training.rematerialisation), self.base.weights(False)
            compile_ahead(network, params, adapter.params, self.planned(stages, adapter), self.base.programs)

    def planned(self, stages: Sequence[Stage], adapter: Adapter) -> list[tuple[Stage, StageSettings]]:
        """Return the stages with their settings, with batches of the right shapes before the base has answered.

        References are zeros, and questions stand for chats, because a row of them is as long.
        """
        questions = [question.tokens for question in self.questions]
        texts = regularising_texts(self.config, self.text, self.opened.encoder, self.opened.context, questions)
        zeros = [
            dataclasses.replace(s, data=dataclasses.replace(s.data, reference=np.zeros(len(s.data.responses))))
            if isinstance(s, PreferenceStage)
            else s
            for s in stages
        ]
        return [(stage, self.settings(stage.name, adapter, texts)) for stage in zeros]

    def train(self, stages: Sequence[Stage], adapter: Adapter) -> tuple[Adapter, list[dict[str, Any]]]:
        """Train all stages, each from the adapter of the one before; return the last adapter and the summaries."""
        stages = [self.with_reference(s, adapter) if isinstance(s, PreferenceStage) else s for s in stages]
        network = self.base.network(self.config.training.rematerialisation)
        texts = self.regularising_texts()
        trainer = Trainer(network, self.base.weights(False), self.base.programs, self.run, self.console)
        assert adapter.params is not None
        settings = [self.settings(stage.name, adapter, texts) for stage in stages]
        params, summaries = trainer.train_stages(list(zip(stages, settings, strict=True)), adapter.params)
        return adapter.trained(jax.device_get(params)), summaries

    def with_reference(self, stage: PreferenceStage, adapter: Adapter) -> PreferenceStage:
        """Return a stage of pairs with the log-probabilities of its reference, the adapter that it starts from."""
        scorer = self.base.scorer(adapter.params, adapter.scale, self.config.training.row_length)
        with Progress(self.console) as progress:
            reference = read_reference(
                scorer,
                stage.data,
                range(len(stage.data.responses)),
                self.run.path / REFERENCE,
                model=self.base.signature,
                progress=stoppable(progress.samples("reference", "prompt")),
            )
        return dataclasses.replace(stage, data=dataclasses.replace(stage.data, reference=reference))

    def regularising_texts(self) -> RegularisingTexts | None:
        """Return the texts on which the model is held near its base, with the base's answers; None: no regulariser."""
        config, encoder = self.config, self.opened.encoder
        path, seed = self.run.path / CHATS, config.training.seed
        row = min(config.alignment.regulariser.tokens, self.opened.context)
        chats = answered_by_base(self.base, self.questions, encoder, seed, row, path, self.console)
        return regularising_texts(config, self.text, encoder, self.opened.context, chats)

    def settings(self, stage: str, adapter: Adapter, texts: RegularisingTexts | None) -> StageSettings:
        """Return the settings of a stage. `texts` hold it near its base."""
        config, training = self.config, self.config.training
        epochs = training.epochs
        if stage == "arguments":
            epochs = config.alignment.argument_epochs or epochs
        elif stage == "instructions" and config.released.unmatched_budget:
            epochs = 1
        return stage_settings(
            training,
            config.optimizer,
            config.optimizer,
            config.objective,
            divergence=config.alignment.regulariser.weight,
            scale=adapter.scale,
            dropout=self.dropout,
            row_length=self.base.row_length(training.row_length),
            epochs=epochs,
            batch_size=training.batch_size,
            max_steps=training.max_steps,
            max_tokens=self.budget,
            packing=training.packing,
            share_prompts=training.share_prompts,
            validate=training.validate,
            optimizer=config.optimizer.name,
            regularising=texts,
        )
