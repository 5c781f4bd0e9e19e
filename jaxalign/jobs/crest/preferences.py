"""stage=preferences: the preference pairs of each round, right over wrong and more over less consistent."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxalign.data.datasets.question import Question
from jaxalign.errors import UserError
from jaxalign.jobs.crest import keys
from jaxalign.jobs.crest.evaluate import read_rationales
from jaxalign.jobs.crest.session import CrestSession
from jaxalign.reasoning.preferences import PAIR_KIND_NAMES, PAIR_KINDS, RationalePair, draw, pools
from jaxalign.reasoning.rationales import Rationale
from jaxalign.reasoning.wording import Wording
from jaxalign.runs.config_file import owner
from jaxalign.runs.directory import Run
from jaxalign.runs.progress import say
from jaxalign.runs.records import read_records, write_records
from jaxalign.runs.stages import StageSpec

PAIRS = "pairs.jsonl"

PREFERENCES_STAGE = StageSpec(
    files=(PAIRS,),
    records=(PAIRS,),
    without=(
        *(
            *keys.SEED,
            *keys.SFT,
            *keys.TEST,
            *keys.LORA,
            *keys.OPTIMIZER,
            *keys.SAMPLING,
            *keys.RELEASED,
            *keys.DPO_LEARNING,
        ),
        *("crest.tolerance", "crest.iterations", "crest.continue_adapter", "training.row_length", "training.max_rows"),
    ),
)


def preferences_stage(session: CrestSession, evaluated: Run) -> Run | None:
    """Draw the pairs of each round.

    Args:
        session: the settings and the questions.
        evaluated: the run of stage=evaluate, which holds the rationales.

    Returns:
        The finished run, or None if the command stops before this stage.

    Raises:
        UserError: see `Stages.do` and `write_pairs`.
    """
    few_shot = session.config.crest.few_shot
    identity = session.identity(PREFERENCES_STAGE, few_shot=few_shot, input=owner(evaluated.path))

    def work(run: Run) -> dict[str, Any]:
        return write_pairs(session, run, read_rationales(evaluated, session.questions.train))

    return session.stages.do("preferences", PREFERENCES_STAGE, identity, work)


def write_pairs(session: CrestSession, run: Run, rationales: Mapping[str, Sequence[Rationale]]) -> dict[str, Any]:
    """Draw the pairs of each round, write them to pairs.jsonl, and return the stage's summary.

    A line names its two rationales by their indices in the question's list. It also has prompt, chosen and rejected as
    texts, so that the file can be used with dataset=pairs. If there are fewer pairs than wanted, a line is printed.

    Args:
        session: the settings, the wording and the questions.
        run: the run of this stage.
        rationales: the rationales of each question with their readings, by its id.

    Raises:
        UserError: there is no pair at all.
    """
    config, wording, questions = session.config, session.wording, session.by_id
    count, mixing, seed = config.dpo.steps * config.dpo.batch_size, config.crest.mixing, config.training.seed
    every = pools(rationales)
    sizes = {kind: every.size(kind) for kind in PAIR_KINDS}
    lines, reports = [], []
    for round in range(1, config.dpo.rounds + 1):
        drawn, report = draw(every, count, mixing, seed, round if config.dpo.resample else 1)
        reports.append(report)
        for one in drawn:
            question, mine = questions[one.question], rationales[one.question]
            better, worse = (_answered(wording, question, mine[place]) for place in (one.better, one.worse))
            texts = {"prompt": wording.prompt(question), "chosen": better, "rejected": worse}
            lines.append({"round": round, **one.record(), **texts})
    if not lines:
        raise UserError(_no_pairs(sizes, mixing))
    for kind, one in reports[0].items():
        if one["drawn"] < one["wanted"]:
            short = f"{one['there']:,} pairs {PAIR_KIND_NAMES[kind]}, but {one['wanted']:,} were wanted"
            say(session.console, f"preferences: there are only {short}")
    write_records(run.path / PAIRS, lines)
    responses = {(line["question"], line[side]) for line in lines for side in ("better", "other")}
    return {"there": sizes, "rounds": reports, "distinct_responses": len(responses)}


def _answered(wording: Wording, question: Question, rationale: Rationale) -> str:
    assert rationale.prediction is not None  # a rationale that could not be read is in no pair
    return wording.response(question, rationale.text, rationale.prediction)


def _no_pairs(sizes: Mapping[str, int], mixing: float) -> str:
    if sizes["z"]:
        return (
            f"crest.mixing={mixing:g} asks only for pairs by follow-ups, and there are none: no question has two right "
            "rationales that differ in how many follow-ups agree; lower crest.mixing (there are "
            f"{sizes['z']:,} pairs by the answer), or sample more (crest.samples)"
        )
    if sizes["z_tilde"]:
        return (
            f"crest.mixing={mixing:g} asks only for pairs by the answer, and there are none: no question has both a "
            f"right and a wrong rationale; raise crest.mixing (there are {sizes['z_tilde']:,} pairs by follow-ups), or "
            "sample more (crest.samples)"
        )
    return (
        "there is no pair to learn from: no question has both a right and a wrong rationale, or two right rationales "
        "that differ in how many follow-ups agree; sample more (crest.samples), or give harder or easier questions"
    )


def read_pairs(run: Run, rounds: int) -> list[list[RationalePair]]:
    """Return the pairs of each round from pairs.jsonl."""
    found: list[list[RationalePair]] = [[] for _ in range(rounds)]
    for record in read_records(run.path / PAIRS, round=int):
        found[record["round"] - 1].append(RationalePair.of_record(record))
    return found
