"""stage=generate: every model answers or continues every prompt."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxalign.inference.base_model import BaseModel
from jaxalign.inference.generations import PromptRequest, count_samples, read_whole, record_key, sample_missing
from jaxalign.jobs.adapters import print_undivided
from jaxalign.jobs.asked import AskedModel
from jaxalign.jobs.engines import InTurns, open_engine
from jaxalign.jobs.harm.session import HarmSession
from jaxalign.jobs.train.data import perplexity_texts
from jaxalign.parallel.distributed import by_first, stoppable
from jaxalign.runs.directory import GENERATIONS, Run
from jaxalign.runs.progress import Progress
from jaxalign.runs.records import digest, read_json_object, write_atomic
from jaxalign.runs.stages import StageSpec
from jaxalign.values.questionnaire import read_perplexity

GENERATE_STAGE = StageSpec(files=(GENERATIONS,), records=(GENERATIONS,))


class Answering:
    """The engine of all models, which is opened when the first response is missing."""

    def __init__(self, session: HarmSession, models: Sequence[AskedModel]):
        adapters = {model.number: model.adapter for model in models}
        self._session, self._adapters = session, [adapters[number] for number in sorted(adapters)]
        self._base: Any = None
        self._server: Any = None

    def sample(self, requests: Sequence[PromptRequest], model: AskedModel, run: Run) -> list[list[dict[str, Any]]]:
        """Draw the responses of a model that its run does not hold yet, and return all of them."""
        c = self._session.config
        identities = [one.identity for one in self._adapters]
        if c.engine.name == "openai":
            self._server = self._server or open_engine(c, self._session.opened, self._adapters).engine
            engine = self._server
        else:
            engine = InTurns(self._loaded(), [model.adapter], c.harm.rows)
            requests = [dataclasses.replace(one, adapter=0) for one in requests]
            identities = [model.adapter.identity]
        policy = self._session.mitigation.policy
        with Progress(self._session.console) as progress:
            return sample_missing(
                engine,
                requests,
                c.harm.samples,
                self._session.sampling,
                run.generations,
                model=self._session.opened.signature,
                adapters=identities,
                progress=stoppable(progress.samples(f"{model.name} ({policy})", "response")),
            )

    def _loaded(self) -> BaseModel:
        if self._base is None:
            self._base = self._session.opened.load()
            print_undivided(self._session.console, self._session.opened.placement, [1])  # models answer one by one
        return self._base

    def measure_perplexity(self, model: AskedModel) -> None:
        """Measure a model's perplexity of held-out plain text, which all commands of one folder measure once."""
        session, path = self._session, _perplexity_file(self._session, model)
        if path is None or by_first(path.is_file):
            return
        base, encoder = self._loaded(), dataclasses.replace(session.opened.encoder, preamble="")
        scorer = base.scorer(model.adapter.params, model.adapter.scale)
        found = read_perplexity(scorer, encoder, _plain_texts(session), session.opened.context)
        by_first(lambda: write_atomic(path, json.dumps({"model": model.name, "perplexity": found}) + "\n"))


def known_perplexity(session: HarmSession, model: AskedModel) -> float | None:
    """Return a model's perplexity of the plain text that this command holds out.

    None where it is not known: where it was not measured, of a server, of a role (whose preamble would be part of the
    text), and where it is not finite.
    """
    path = _perplexity_file(session, model)
    if path is None or not path.is_file():
        return None
    return read_json_object(path, "remove it", perplexity=int | float | None)["perplexity"]


def _perplexity_file(session: HarmSession, model: AskedModel) -> Path | None:
    c = session.config
    if c.engine.name == "openai" or model.preamble:
        return None
    key = digest([session.opened.signature, model.adapter.identity, _plain_texts(session)])
    return Path(c.run.folder) / "stages" / "perplexity" / f"{key}.json"


def _plain_texts(session: HarmSession) -> list[str]:
    return perplexity_texts(session.config.alignment.validation_fraction)


def generate_stage(session: HarmSession, model: AskedModel, answering: Callable[[], Answering]) -> Run | None:
    """Let a model respond to all prompts; None if the command stops before this stage. For errors see `Stages.do`."""

    def work(run: Run) -> dict[str, Any]:
        return count_samples(answering().sample(session.requests(model), model, run))

    return session.stages(model).do("generate", GENERATE_STAGE, session.identity(model), work)


def read_responses(session: HarmSession, model: AskedModel, run: Run) -> list[list[tuple[str, str | None]]]:
    """Return for each prompt the (key, text) of each of its samples; None for one that a server did not end well."""
    known = read_whole(run.generations)
    found = []
    for request in session.requests(model):
        keys = [
            record_key(session.opened.signature, model.adapter.identity, request.tokens, session.sampling, index)
            for index in range(session.config.harm.samples)
        ]
        found.append([(key, known[key]["text"] if key in known else None) for key in keys])
    return found
