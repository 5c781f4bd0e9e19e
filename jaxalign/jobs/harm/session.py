"""What all stages of a benchmark of harm share: the models that are asked, the prompts, and how they are asked."""

import dataclasses
from functools import cached_property
from typing import Any

from rich.console import Console

from jaxalign.config.evaluate import EvaluateConfig
from jaxalign.config.identity import as_dict, counted
from jaxalign.data.encoding import Encoder
from jaxalign.inference.generations import PromptRequest
from jaxalign.inference.sampling_params import SamplingParams
from jaxalign.jobs.asked import AskedModel
from jaxalign.jobs.harm import keys
from jaxalign.jobs.mirroring import mirror_of
from jaxalign.jobs.settings import sampling_params
from jaxalign.jobs.setup import OpenedModel
from jaxalign.runs.config_file import safe_name
from jaxalign.runs.progress import say
from jaxalign.runs.records import digest
from jaxalign.runs.stages import Stages
from jaxalign.safety.benchmarks.benchmark import BenchmarkPrompt, benchmark_version
from jaxalign.safety.mitigation import Mitigation
from jaxalign.safety.starter_prompts import QUESTION

HARM_STAGES = ("generate", "judge", "aggregate")


@dataclasses.dataclass(frozen=True)
class HarmSession:
    """One command: its prompts, its mitigation, and the model that it asks."""

    config: EvaluateConfig
    opened: OpenedModel
    prompts: list[BenchmarkPrompt]
    mitigation: Mitigation
    console: Console

    @property
    def prompt_format(self) -> str:
        """The format of questions; what is continued is always plain."""
        return self.opened.encoder.prompt_format

    @property
    def sampling(self) -> SamplingParams:
        """How responses are sampled."""
        return sampling_params(self.config.sampling)

    @cached_property
    def version(self) -> str:
        """The version of all prompts of the benchmark that are asked without mitigation."""
        return benchmark_version(self.prompts)

    def with_mitigation(self, mitigation: Mitigation) -> "HarmSession":
        """Return this command with another mitigation."""
        return dataclasses.replace(self, mitigation=mitigation)

    @cached_property
    def covered_prompts(self) -> list[BenchmarkPrompt]:
        """The prompts that the mitigation has a text for."""
        return self.mitigation.covered(self.prompts)[0]

    def encoder(self, prompt: BenchmarkPrompt, model: AskedModel) -> Encoder:
        """Return what encodes a prompt for a model."""
        form = self.prompt_format if prompt.form == QUESTION else "plain"
        return dataclasses.replace(self.opened.encoder, prompt_format=form, preamble=model.preamble)

    def text(self, prompt: BenchmarkPrompt) -> str:
        """Return what the model gets, before the chat template or the preamble of a role is put around it."""
        text = self.mitigation.text(prompt)
        return self._question.replace("{prompt}", text) if prompt.form == QUESTION else text

    @property
    def _question(self) -> str:
        return self.config.harm.question if self.prompt_format == "plain" else "{prompt}"

    @property
    def asking(self) -> dict[str, Any]:
        """What decides the responses besides the model and the mitigation: the same for all models of one table."""
        engine = self.config.engine
        return {
            **as_dict(self.sampling),
            "prompt_format": self.prompt_format,
            "prompt": self.opened.encoder.render(self._question),
            "engine": engine.name,
            "send": engine.send,
            "strict": engine.strict,
        }

    def requests(self, model: AskedModel) -> list[PromptRequest]:
        """Return one request for each prompt."""
        return [
            PromptRequest(
                prompt.text,
                self.encoder(prompt, model).prompt(self.text(prompt)),
                model.number,
                {"id": prompt.id, "from": model.name},
            )
            for prompt in self.covered_prompts
        ]

    def identity(self, model: AskedModel) -> dict[str, Any]:
        """Return all that decides the responses of a model."""
        c, served = self.config, self.config.engine.name == "openai"
        mitigation = counted(c.mitigation, keys.MITIGATION)
        engine = counted(c.engine, () if served else keys.LOCAL_ENGINE)
        return {
            "model": self.opened.signature,
            "adapter": model.adapter.identity,
            "benchmark": {"version": self.version, **counted(c.harm, keys.BENCHMARK)},
            "mitigation": {"name": self.mitigation.policy, **mitigation} if mitigation else self.mitigation.policy,
            "prompts": self._prompts_hash(model),
            "sampling": as_dict(self.sampling),
            "engine": {**engine, "url": c.engine.url, "models": c.engine.models} if served else engine,
        }

    def _prompts_hash(self, model: AskedModel) -> str:
        """Return the hash of all prompts as a model gets them, which are the same for all models without a role."""
        if model.preamble not in self._hashes:
            rendered = [self.encoder(one, model).render(self.text(one)) for one in self.covered_prompts]
            self._hashes[model.preamble] = digest([[one.id for one in self.covered_prompts], rendered])
        return self._hashes[model.preamble]

    @cached_property
    def _hashes(self) -> dict[str, str]:
        """What `_prompts_hash` has returned, by the preamble of the role."""
        return {}

    def stages(self, model: AskedModel) -> Stages:
        """Return the stages of one model; commands with other models or judges share them."""
        c = self.config
        folder = safe_name(f"{self.mitigation.policy}-{model.name}")
        return Stages(
            names=HARM_STAGES,
            wanted=c.stage,
            config=as_dict(c),
            dir=None if c.run.dir is None else f"{c.run.dir}/models/{folder}",
            root=c.run.root,
            label=f"{c.harm.name}-{folder}",
            overwrite=c.run.overwrite,
            mirror=mirror_of(c),
            say=lambda line: say(self.console, f"{model.name}: {line}"),
            in_words=_in_words,
        )


def _in_words(counts: Any) -> list[str]:
    if "states" in counts:
        return [f"{n:,} {state}" for state, n in counts["states"].items() if n]
    return [f"{counts.get('sampled', 0):,} responses"]
