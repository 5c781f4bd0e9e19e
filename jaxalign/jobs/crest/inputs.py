"""The input of a CREST run: the questions, and checks that settings, model and questions fit together."""

from jaxalign.config.crest import CrestConfig
from jaxalign.data.datasets.questions import Questions
from jaxalign.data.encoding import Encoder
from jaxalign.errors import UserError
from jaxalign.jobs.readers import QUESTION_READERS, reader_of
from jaxalign.reasoning.answers import answer_tokens
from jaxalign.reasoning.wording import Wording


def read_questions(config: CrestConfig, wording: Wording) -> Questions:
    """Return the questions, read from files or made by the program, and print which files gave how many rows.

    Raises:
        UserError: the questions cannot be read, or the program cannot make as many different ones.
    """
    exclude = () if config.released.examples_in_train else [shot.question.id for shot in wording.shots]
    read = reader_of(QUESTION_READERS, config.questions)
    return read(config.questions, config.offline, config.training.seed, exclude)


def check_method(config: CrestConfig, questions: Questions) -> None:
    """Raise UserError if a setting does not fit the questions."""
    most = max(len(question.options) for question in questions.train)
    t = config.crest.tolerance
    if t is not None and t > most:
        raise UserError(
            f"crest.tolerance={t} is above {most}, the largest number of options of a question: give 0 to {most}, or "
            "null to keep every right rationale"
        )
    if (config.crest.few_shot or config.test.few_shot) and not config.questions.examples:
        raise UserError(
            f"dataset={config.dataset.name} has no worked examples: give dataset.examples, or crest.few_shot=false and "
            "test.few_shot=false"
        )
    if config.stage not in ("all", *stages_of(config, questions)):
        raise UserError(_no_stage(config))


def stages_of(config: CrestConfig, questions: Questions) -> list[str]:
    """Return the stages of a configuration, in their order; the last is test, or grade if that was asked for."""
    c = config
    learns = c.crest.iterations > 0
    stages = ["seed"] if questions.solved else []
    if reads_rationales(c):
        stages += ["rationales", "evaluate"]
    if learns and c.sft.epochs:
        stages.append("sft")
    if learns and c.dpo.rounds:
        stages += ["preferences", "dpo"]
    return [*stages, "grade" if c.stage == "grade" else "test"]


def reads_rationales(config: CrestConfig) -> bool:
    """Return whether the configuration uses rationales; fine-tuning on the labels alone does not."""
    return config.crest.iterations > 0 and (config.sft.rationale or config.dpo.rounds > 0)


def _no_stage(config: CrestConfig) -> str:
    stage = config.stage
    if stage == "seed":
        return f"stage=seed needs solved questions, and dataset={config.dataset.name} has none"
    if config.crest.iterations == 0:
        given, mend = "crest.iterations=0", "crest.iterations=1"
    elif stage == "sft":
        given, mend = "sft.epochs=0", "sft.epochs=2"
    elif stage in ("preferences", "dpo"):
        given, mend = "dpo.rounds=0", "dpo.rounds=2"
    else:
        given, mend = "sft.rationale=false", "sft.rationale=true"
    return f"stage={stage}: with {given} there is no such stage: give {mend}, or another stage"


def check_lengths(config: CrestConfig, questions: Questions, encoder: Encoder, wording: Wording, context: int) -> None:
    """Raise UserError for the first question that does not fit into the context.

    Two texts of each question must fit, together with the response that the model writes: its prompt (with the worked
    examples and the hint, if they are used), and its follow-up question about each option.

    Args:
        config: the configuration.
        questions: the questions.
        encoder: the encoder, without worked examples.
        wording: makes the prompts.
        context: the longest input of the model, in tokens.
    """
    preamble = len(encoder.text(wording.preamble())) if config.crest.few_shot or config.test.few_shot else 0
    everyone = (*questions.solved, *questions.train, *questions.validation, *questions.test)
    behind = len(encoder.text(wording.marker)) + answer_tokens(everyone, encoder, wording)  # for a second reading
    written = max(config.sampling.max_tokens, config.test.max_tokens)
    room = context - written - preamble - behind
    verdict = max(len(encoder.text(text)) for text in (wording.affirm, wording.deny))
    empty = len(encoder.prompt("\n"))
    for question in everyone:
        length = len(encoder.prompt(wording.prompt(question, hint=config.crest.hint)))
        if length > room:
            raise UserError(
                f"question {question.id} takes {length} tokens, and the context of {context} holds {max(room, 0)} "
                "beside the worked examples and the response: lower sampling.max_tokens and test.max_tokens, or choose "
                "a model with a longer context"
            )
        for option in range(len(question.options)):
            asked, closing = wording.ask(question, option), wording.close(question, option)
            # A text has at most as many tokens as bytes, so most questions need not be encoded here.
            if empty + len(f"{asked}{closing}".encode()) + verdict + written <= context:
                continue
            length = len(encoder.prompt(asked)) + len(encoder.text(closing)) + verdict
            if length > context - written:
                raise UserError(
                    f"question {question.id} takes {length} tokens as a follow-up question about option "
                    f"{question.letters[option]}, and the context of {context} holds {max(context - written, 0)} "
                    "beside the response: lower sampling.max_tokens and test.max_tokens, or choose a model with a "
                    "longer context"
                )
