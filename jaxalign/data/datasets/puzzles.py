"""Generated questions: orderings, chains of things inside one another, and chains of causes, in varied wording.

The answer of each follows from the statements in it. No two questions of a set are the same.
"""

import itertools

import numpy as np

from jaxalign.data.datasets.question import Question
from jaxalign.data.datasets.questions import Questions
from jaxalign.data.order import Stream
from jaxalign.errors import UserError

PEOPLE = tuple(
    """
    Ada Ben Cleo Dan Eve Finn Gus Hana Ivo June Kai Lena Milo Nora Otto Pia Quin Rosa Sam Tara Uma Vic Wes Yara Zoe Amir
    Bea Carl Dora Emil Faye Gina Hugo Inga Jack Kira Leo Mona Nils Olga Paul Rita Saul Tess
    """.split()  # noqa: SIM905 (a list of literals would take a line for each)
)

ORDERS = (
    ("taller than", "shorter than", "tallest", "shortest"),
    ("older than", "younger than", "oldest", "youngest"),
    ("faster than", "slower than", "fastest", "slowest"),
    ("richer than", "poorer than", "richest", "poorest"),
    ("stronger than", "weaker than", "strongest", "weakest"),
)

PARTS = tuple(
    """
    bolt hinge lamp drawer shelf cart wagon barn engine pump tank tower bridge ferry harbour island market hall cabin
    kitchen cellar garden farm mill valley street school library office station train ship
    """.split()  # noqa: SIM905 (a list of literals would take a line for each)
)

EVENTS = (
    ("the wind drops", "the mill stops"),
    ("the bell rings", "the dog barks"),
    ("the tank fills", "the alarm sounds"),
    ("the rain falls", "the river rises"),
    ("the road floods", "the bus turns back"),
    ("the shop closes", "the street goes quiet"),
    ("the oven cools", "the bread stays flat"),
    ("the fence breaks", "the sheep run off"),
    ("the lamp goes out", "the baby wakes"),
    ("the ship arrives", "the market opens"),
    ("the snow melts", "the grass grows"),
    ("the band plays", "the crowd cheers"),
)


def make_puzzles(
    *,
    train: int,
    validation: int,
    test: int,
    solved: int = 0,
    links: tuple[int, ...] = (2, 3),
    turned: float = 0.5,
    seed: int = 0,
) -> Questions:
    """Return generated questions.

    Args:
        train: number of questions to train on.
        validation: number of questions to validate on.
        test: number of questions of the test.
        solved: number of further questions with solutions, for a first adapter (`Questions.seed`).
        links: numbers of statements that an answer follows from, each 1 to 4, in equal shares. More are harder.
        turned: share of the statements that are put the other way round, and of the questions whose statements are
            shuffled.
        seed: decides all draws.

    Raises:
        UserError: a number of links is not 1 to 4, or there are not so many different questions.
    """
    if not links or not set(links) <= {1, 2, 3, 4}:
        raise UserError(
            f"dataset.links={list(links)} is not allowed: give a list of numbers from 1 to 4, such as [2,3]"
        )
    random = np.random.Generator(np.random.PCG64([seed, Stream.PUZZLES]))
    makers = (_ordering, _containment, _chain)
    found: dict[str, Question] = {}
    total = solved + train + validation + test
    for number in range(100 * total):
        if len(found) == total:
            break
        maker, length = makers[number % 3], links[number // 3 % len(links)]
        text, options, gold, solution = maker(random, length, turned)
        if text not in found:
            order = random.permutation(len(options))
            found[text] = Question(
                f"{maker.__name__.strip('_')}-{len(found)}",
                text,
                tuple(options[i] for i in order),
                int(np.flatnonzero(order == gold)[0]),
                solution=solution,
            )
    if len(found) < total:
        raise UserError(
            f"dataset.train, .validation and .test ask for {total} questions, and only {len(found)} different ones "
            "were found: ask for fewer, or give more numbers in dataset.links"
        )
    questions = iter(found.values())
    first, *rest = (list(itertools.islice(questions, size)) for size in (solved, train, validation, test))
    return Questions("puzzles", rest[0], rest[1], rest[2], solved=tuple(first))


def _pick(random: np.random.Generator, words: tuple[str, ...], count: int) -> list[str]:
    return [words[i] for i in random.permutation(len(words))[:count]]


def _told(random: np.random.Generator, facts: list[str], turned: float) -> str:
    order = random.permutation(len(facts)) if random.random() < turned else range(len(facts))
    return " ".join(facts[i] for i in order)


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def _ordering(random: np.random.Generator, links: int, turned: float) -> tuple[str, list[str], int, str]:
    """Who is first or last of links + 1 people?"""
    more, less, most, least = ORDERS[random.integers(len(ORDERS))]
    people = _pick(random, PEOPLE, links + 1)
    facts = []
    for upper, lower in itertools.pairwise(people):
        other_way = random.random() < turned
        facts.append(f"{lower} is {less} {upper}." if other_way else f"{upper} is {more} {lower}.")
    told = _told(random, facts, turned)
    first = bool(random.random() < 0.5)
    question = f"{told} Who is the {most if first else least}?"
    gold = 0 if first else links
    solution = " ".join(f"{a} is {more} {b}." for a, b in itertools.pairwise(people))
    solution += f" From first to last: {', '.join(people)}. The {most if first else least} is {people[gold]}."
    return question, people, gold, solution


def _containment(random: np.random.Generator, links: int, turned: float) -> tuple[str, list[str], int, str]:
    """What is the outermost or innermost of a chain of things in one another?"""
    things = _pick(random, PARTS, links + 1)
    facts = []
    for inner, outer in itertools.pairwise(things):
        other_way = random.random() < turned
        facts.append(f"The {outer} holds the {inner}." if other_way else f"The {inner} is inside the {outer}.")
    told = _told(random, facts, turned)
    outermost = bool(random.random() < 0.5)
    ask = "Which of them holds all the others?" if outermost else "Which of them is inside all the others?"
    gold = links if outermost else 0
    which = "holds all the others" if outermost else "is inside all the others"
    solution = " ".join(f"The {a} is inside the {b}." for a, b in itertools.pairwise(things))
    solution += f" From inside to outside: {', '.join(things)}. The one that {which} is the {things[gold]}."
    return f"{told} {ask}", [f"the {thing}" for thing in things], gold, solution


def _chain(random: np.random.Generator, links: int, turned: float) -> tuple[str, list[str], int, str]:
    """What happens at the end of a chain of causes?"""
    events = _pick(random, tuple(event for pair in EVENTS for event in pair), links + 2)
    chain, other = events[: links + 1], events[links + 1]
    facts = []
    for cause, effect in itertools.pairwise(chain):
        other_way = random.random() < turned
        facts.append(f"{_capital(effect)} whenever {cause}." if other_way else f"If {cause}, then {effect}.")
    told = _told(random, facts, turned)
    question = f"{told} Now {chain[0]}. What happens last of all?"
    solution = " ".join(f"{_capital(event)}." if event == chain[0] else f"Then {event}." for event in chain)
    return question, [*chain[1:], other], links - 1, f"{solution} What happens last of all: {chain[-1]}."
