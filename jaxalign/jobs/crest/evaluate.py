"""stage=evaluate: the answer that each rationale leads to, and whether its follow-up questions agree."""

import dataclasses
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from jaxalign.data.datasets.question import Question
from jaxalign.data.packing import Shape
from jaxalign.data.trees import tree_length
from jaxalign.inference.scorer import Scorer
from jaxalign.inference.shapes import SHAPES, keep_shapes, kept_shapes
from jaxalign.jobs.crest import keys
from jaxalign.jobs.crest.rationales import draw_rationales, read_drawn
from jaxalign.jobs.crest.session import CrestSession
from jaxalign.models.adapter import Adapter
from jaxalign.parallel.distributed import stoppable
from jaxalign.reasoning import released
from jaxalign.reasoning.filtering import count_rationales
from jaxalign.reasoning.followups import followup_trees, read_followups
from jaxalign.reasoning.rationales import Rationale, answer_tree, distinct, read_answers, relabel
from jaxalign.runs.config_file import owner
from jaxalign.runs.directory import GENERATIONS, Run
from jaxalign.runs.progress import Progress
from jaxalign.runs.records import append_record, read_records, write_records
from jaxalign.runs.stages import StageSpec

RATIONALES = "rationales.jsonl"

EVALUATE_STAGE = StageSpec(
    files=(RATIONALES, SHAPES, GENERATIONS),
    records=(RATIONALES,),
    without=(
        *(*keys.SEED, *keys.SFT, *keys.DPO, *keys.TEST, *keys.LORA, *keys.OPTIMIZER, *keys.TRAINING),
        *("crest.tolerance", "crest.mixing", "crest.iterations", "crest.continue_adapter"),
        *("released.prompt_without_question", "released.no_end_token"),
        *("released.threshold", "released.examples_in_train"),
    ),
)

QUESTIONS_AT_A_TIME = 32
"""The number of questions whose rationales are read together and then written to the disk."""


def evaluate_stage(session: CrestSession, name: str, drawn: Run, model: Adapter) -> Run | None:
    """Read the answer and the follow-up questions of every rationale.

    Args:
        session: the model and the settings.
        name: the name of the stage: evaluate, evaluate-2, ...
        drawn: the run of stage=rationales.
        model: the adapter that sampled the rationales, and now reads them.

    Returns:
        The finished run, or None if the command stops before this stage.

    Raises:
        UserError: see `Stages.do`.
    """
    few_shot = session.config.crest.few_shot
    identity = session.identity(EVALUATE_STAGE, few_shot=few_shot, input=owner(drawn.path), judge=model.identity)

    def work(run: Run) -> dict[str, Any]:
        return evaluate_rationales(session, run, drawn, model)

    return session.stages.do(name, EVALUATE_STAGE, identity, work)


def evaluate_rationales(session: CrestSession, run: Run, drawn: Run, model: Adapter) -> dict[str, Any]:
    """Read all rationales, and return the stage's summary.

    With `crest.hint`, a question without a right rationale gets more samples, whose prompts give the answer (STaR).
    """
    judge, train = RationaleReader(session, model), session.questions.train
    judge.read_all(run, train, [[record["text"] for record in mine] for mine in read_drawn(session, drawn, model)])
    hinted = {}
    if session.config.crest.hint:
        found = read_rationales(run, train)
        missing = [question for question in train if not any(one.right for one in found[question.id])]
        given = draw_rationales(session, run, model, missing, hint=True, what="hinted rationales")
        hinted = judge.add_hinted(run, missing, given)
    found = read_rationales(run, train)
    options = {question.id: len(question.options) for question in train}
    tokens = sum(tokens_read(session, question, found[question.id]) for question in train)
    return {**count_rationales(found, options), **hinted, "tokens": tokens}


@dataclasses.dataclass(frozen=True)
class RationaleReader:
    """A model that reads rationales, in this program's way or as the released code does."""

    session: CrestSession
    model: Adapter
    shapes: list[Shape] = dataclasses.field(default_factory=list)
    """The shapes of the passes so far. A later pass takes one of them if it can, which saves a compilation."""

    def read(self, questions: Sequence[Question], given: list[list[Rationale]]) -> list[list[Rationale]]:
        """Return the rationales of each question with their answers and follow-ups."""
        session, switches = self.session, self.session.config.released
        encoder, wording = session.encoder, session.wording
        read = read_answers(self._scorer(), questions, given, encoder, wording)
        if switches.letters_in_words:
            read = released.read_answers_in_words(session.sampler(self.model), questions, read, encoder, wording)
        labels: list[int | None] = [question.gold for question in questions]
        if session.config.crest.label == "majority":
            relabelled = [relabel(mine) for mine in read]
            read, labels = [mine for mine, _ in relabelled], [label for _, label in relabelled]
        if switches.followups_by_not:
            sampler = session.sampler(self.model)
            return released.read_followups_by_not(sampler, questions, read, labels, encoder, wording)
        return read_followups(self._scorer(), questions, read, labels, encoder, wording)

    def _scorer(self) -> Scorer:
        return dataclasses.replace(self.session.scorer(self.model), shapes=self.shapes)

    def read_all(self, run: Run, questions: Sequence[Question], texts: Sequence[Sequence[str]]) -> None:
        """Read the rationales that rationales.jsonl does not hold yet, and append them to it.

        Equal texts are read only once, even if each of them counts (`crest.deduplicate=false`). The questions are read
        in parts of a fixed size, so that a resumed run packs them as an uninterrupted run does.

        Args:
            run: the run of this stage.
            questions: the questions.
            texts: the sampled rationales of each question.
        """
        parts = [
            range(first, min(first + QUESTIONS_AT_A_TIME, len(questions)))
            for first in range(0, len(questions), QUESTIONS_AT_A_TIME)
        ]
        done = _whole_parts(run, [[questions[n].id for n in part] for part in parts], self.session.config.crest.samples)
        self.shapes[:] = kept_shapes(run.path / SHAPES, done - 1)
        waiting = sum(len(part) for part in parts[done:])
        read, tokens, since = 0, 0, time.perf_counter()
        with Progress(self.session.console) as progress:
            count = stoppable(progress.samples("readings", "question"))
            count(0, waiting, 0.0)
            for number, part in enumerate(parts[done:], start=done):
                mine = [questions[n] for n in part]
                found = self.read(mine, [distinct(questions[n], texts[n]) for n in part])
                tokens += sum(tokens_read(self.session, *one) for one in zip(mine, found, strict=True))
                if not self.session.config.crest.deduplicate:
                    found = [_repeated(texts[n], one) for n, one in zip(part, found, strict=True)]
                keep_shapes(run.path / SHAPES, number, self.shapes)
                lines = [one.record(q.letters) for q, these in zip(mine, found, strict=True) for one in these]
                append_record(run.path / RATIONALES, *lines)
                read += len(part)
                count(read, waiting, tokens / (time.perf_counter() - since))

    def add_hinted(
        self, run: Run, questions: Sequence[Question], records: Sequence[Sequence[Mapping[str, Any]]]
    ) -> dict[str, int]:
        """Append the hinted rationales that lead to the right answer (STaR).

        Args:
            run: the run of this stage.
            questions: the questions.
            records: the samples of each question; their prompts gave the right answer.

        Returns:
            The number of samples, the number of rationales that were appended, and the tokens of the samples.
        """
        given = [
            distinct(question, [record["text"] for record in mine])
            for question, mine in zip(questions, records, strict=True)
        ]
        kept = []
        for question, mine in zip(questions, self.read(questions, given), strict=True):
            # copies is 0, because the rationale was not sampled from the question alone.
            kept += [dataclasses.replace(one, copies=0).record(question.letters) for one in mine if one.right]
        append_record(run.path / RATIONALES, *kept)
        sampled = [record["tokens"] for mine in records for record in mine]
        return {"hinted": len(sampled), "hinted_kept": len(kept), "hinted_tokens": sum(sampled)}


def read_rationales(run: Run, questions: Sequence[Question]) -> dict[str, list[Rationale]]:
    """Return the rationales of a run of this stage, by the ids of the questions."""
    letters = {question.id: question.letters for question in questions}
    found: dict[str, list[Rationale]] = {question.id: [] for question in questions}
    for record in read_records(run.path / RATIONALES, question=str):
        found[record["question"]].append(Rationale.of_record(record, letters[record["question"]]))
    return found


def tokens_read(session: CrestSession, question: Question, rationales: Sequence[Rationale]) -> int:
    """Return the number of tokens of the trees in which a question's rationales were read.

    The follow-up trees of a question share their beginning. It is counted in each of them, though it is computed once.
    """
    trees = []
    texts = list({one.text: one for one in rationales if one.text}.values())
    if texts:
        trees.append(answer_tree(question, texts, session.encoder, session.wording)[0])
    judged = [one for one in texts if one.followups]
    if judged:
        trees += followup_trees(question, judged, session.encoder, session.wording)[0]
    return sum(map(tree_length, trees))


def _repeated(texts: Sequence[str], read: Sequence[Rationale]) -> list[Rationale]:
    """Return the reading of every sample, so that equal texts count as often as they were sampled."""
    found = {one.text: dataclasses.replace(one, copies=1) for one in read}
    return [found[text.strip()] for text in texts]


def _whole_parts(run: Run, parts: Sequence[Sequence[str]], samples: int) -> int:
    """Return the number of parts, from the first on, that are read completely; `parts` are lists of question ids.

    All other records leave the file, because they are read again: those of a part that was interrupted, and hinted
    rationales.
    """
    path = run.path / RATIONALES
    records = read_records(path, question=str, copies=int)
    copies: Counter[str] = Counter()
    for record in records:
        copies[record["question"]] += record["copies"]
    whole = [all(copies[id] == samples for id in part) for part in parts]
    done = whole.index(False) if False in whole else len(parts)
    ids = {id for part in parts[:done] for id in part}
    kept = [record for record in records if record["question"] in ids and record["copies"]]
    if len(kept) < len(records):
        write_records(path, kept)
    return done
