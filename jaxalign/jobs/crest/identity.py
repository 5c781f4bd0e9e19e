"""What decides the numbers of a CREST run and of each of its stages: the same identity finds the same results again.

Run directories are named by these and checked against them, so nothing belongs in one that changes no number of it.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import yaml

from jaxalign.config.crest import CrestConfig
from jaxalign.config.identity import plain
from jaxalign.data.datasets.questions import Question, Questions
from jaxalign.jobs.crest.learner import Point
from jaxalign.reasoning.wording import Wording
from jaxalign.runs.directory import Run
from jaxalign.runs.records import digest


@dataclasses.dataclass(frozen=True)
class Identity:
    """The identities of a configuration's stages; `model` is the base's signature."""

    config: CrestConfig
    model: str
    wording: Wording
    questions: Questions

    def whole(self) -> dict[str, Any]:
        """Return what changes the numbers of the whole run."""
        c = plain(self.config)
        kept = {key: c[key] for key in ("crest", "seed", "sft", "dpo", "test", "released")}
        return {
            **self._common(),
            **self._learning(),
            **kept,
            **self._examples(self.config.crest.few_shot or self.config.test.few_shot),
            "sampling": self._sampling(),
            "questions": self._everything(),
        }

    def seed(self) -> dict[str, Any]:
        """Return that of the starting adapter."""
        return {
            **self._common(),
            **self._learning(),
            "seed": dataclasses.asdict(self.config.seed),
            "questions": digest(_texts(self.questions.seed)),
        }

    def rationales(self, by: Point) -> dict[str, Any]:
        """Return that of the rationales which a model samples."""
        return {
            **self._common(),
            "adapter": by.identity,
            "sampling": self._sampling(),
            "samples": self.config.crest.samples,
            **self._examples(self.config.crest.few_shot),
            "questions": digest(_texts(self.questions.train)),
        }

    def evaluate(self, drawn: Run, judge: Point) -> dict[str, Any]:
        """Return that of the rationales' readings."""
        c = self.config
        return {
            "input": digest(stored(drawn)),
            "judge": judge.identity,
            "deduplicate": c.crest.deduplicate,
            "label": c.crest.label,
            "hint": c.crest.hint,
            "released": [c.released.letters_in_words, c.released.followups_by_not],
        }

    def sft(self, evaluated: Run | None, start: Point) -> dict[str, Any]:
        """Return that of fine-tuning."""
        c = self.config
        return {
            **self._common(),
            **self._learning(),
            **self._test(),
            "input": digest(stored(evaluated)) if evaluated and c.sft.rationale else self._everything(),
            "start": start.identity if c.crest.continue_adapter else "",
            "tolerance": c.crest.tolerance,
            "sft": dataclasses.asdict(c.sft),
            "released": [c.released.threshold, c.released.no_end_token],
        }

    def preferences(self, evaluated: Run) -> dict[str, Any]:
        """Return that of the pairs drawn."""
        c = self.config
        return {
            "input": digest(stored(evaluated)),
            "mixing": c.crest.mixing,
            "pairs": c.dpo.steps * c.dpo.batch_size,
            "rounds": c.dpo.rounds,
            "resample": c.dpo.resample,
            "seed": c.training.seed,
        }

    def dpo(self, evaluated: Run, drawn: Run, start: Point) -> dict[str, Any]:
        """Return that of the rounds of preference optimisation."""
        c = self.config
        return {
            **self._common(),
            **self._learning(),
            **self._test(),
            "input": [digest(stored(evaluated)), digest(stored(drawn)), start.identity],
            "dpo": dataclasses.asdict(c.dpo),
            "released": c.released.prompt_without_question,
        }

    def asked(self) -> str:
        """Return that of the questions which models are asked on the way and at the end."""
        return digest([_texts(part) for part in (self.questions.validation, self.questions.test)])

    def _common(self) -> dict[str, Any]:
        c = self.config
        return {
            "model": self.model,
            "precision": c.precision,
            "prompt_format": c.model.prompt_format,
            "system": c.model.system,
            "reasoning": {**plain(c)["reasoning"], "reply": c.dataset.reply},
        }

    def _examples(self, few_shot: bool) -> dict[str, Any]:
        """Return the worked examples, where they are shown."""
        shots = [dataclasses.asdict(shot) for shot in self.wording.shots]
        return {"few_shot": few_shot, "examples": digest(shots) if few_shot else None}

    def _learning(self) -> dict[str, Any]:
        c = plain(self.config)
        training = {key: c["training"][key] for key in ("seed", "row_length", "max_rows")}
        return {"lora": c["lora"], "optimizer": c["optimizer"], "training": training}

    def _sampling(self) -> dict[str, Any]:
        return {key: value for key, value in plain(self.config)["sampling"].items() if key != "rows"}

    def _test(self) -> dict[str, Any]:
        return {
            "test": {**plain(self.config)["test"], "sampling_seed": self.config.sampling.seed},
            "letters_in_words": self.config.released.letters_in_words,
            **self._examples(self.config.test.few_shot),
            "validation": digest(_texts(self.questions.validation)),
        }

    def _everything(self) -> str:
        q = self.questions
        return digest([_texts(part) for part in (q.seed, q.train, q.validation, q.test)])


def stored(run: Run) -> Any:
    """Return the identity that a run's directory was made for."""
    return yaml.safe_load(run.config.read_text())["identity"]


def _texts(questions: Sequence[Question]) -> list[list[Any]]:
    return [[q.id, q.passage, q.text, list(q.options), q.gold, q.solution] for q in questions]
