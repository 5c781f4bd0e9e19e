"""What a CREST run is given: its questions, and whether settings, model and questions go together."""

import dataclasses

from jaxalign.config import CrestConfig
from jaxalign.data.datasets.puzzles import make_puzzles
from jaxalign.data.datasets.questions import Questions, load_questions
from jaxalign.data.encoding import Encoder
from jaxalign.errors import UserError
from jaxalign.reasoning.wording import Wording


def read_questions(config: CrestConfig, wording: Wording) -> Questions:
    """Read or make the questions."""
    d = config.dataset
    if d.name == "puzzles":
        sizes = {name: getattr(d, name) or 1 for name in ("train", "validation", "test")}
        made = make_puzzles(**sizes, solved=d.solved, links=d.links, turned=d.turned, seed=config.training.seed)
        cut = {name: getattr(made, name)[: d.limit] for name in sizes}
        return dataclasses.replace(made, **cut)
    exclude = () if config.released.examples_in_train else [shot.question.id for shot in wording.shots]
    return load_questions(
        d.name,
        d.path,
        seed=config.training.seed,
        limit=d.limit,
        exclude=exclude,
        skip=d.skip,
        offline=config.offline,
    )


def check_method(config: CrestConfig, questions: Questions) -> None:
    """Raise UserError for settings that do not go with the questions."""
    most = max(len(question.options) for question in questions.train)
    t = config.crest.tolerance
    if t is not None and t > most:
        raise UserError(
            f"crest.tolerance={t} is above the {most} options that a question has: give 0 to {most}, or null for all"
        )
    if (config.crest.few_shot or config.test.few_shot) and not config.dataset.examples:
        raise UserError(
            f"dataset={config.dataset.name} has no worked examples: give dataset.examples, or few_shot=false"
        )
    if config.stage == "seed" and not questions.seed:
        raise UserError(f"stage=seed needs solved questions, and dataset={config.dataset.name} has none")


def check_lengths(config: CrestConfig, questions: Questions, encoder: Encoder, wording: Wording, context: int) -> None:
    """Raise UserError for the first question whose prompt does not fit into the context with what is written."""
    preamble = len(encoder.text(wording.preamble())) if config.crest.few_shot or config.test.few_shot else 0
    room = context - max(config.sampling.max_tokens, config.test.max_tokens) - preamble - 16
    for question in (*questions.seed, *questions.train, *questions.validation, *questions.test):
        length = len(encoder.prompt(wording.prompt(question)))
        if length > room:
            raise UserError(
                f"question {question.id} takes {length} tokens, and the context of {context} holds {max(room, 0)} "
                "beside the worked examples and sampling.max_tokens: lower that, or choose another model"
            )
