"""A rubric that any server with OpenAI's interface for chats reads."""

import dataclasses
import json
import os
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import anyio

from jaxalign.errors import UserError
from jaxalign.inference.connection import Connection, connected
from jaxalign.inference.server import (
    JUDGE_KEY_VARIABLE,
    Fault,
    JsonServer,
    NoAnswer,
    RefusedRequest,
    said,
    without_keys,
)
from jaxalign.runs.records import digest
from jaxalign.safety.judgements import Exchange, Judgement, Scale
from jaxalign.safety.judges.rubric import Rubric

URL_VARIABLE = "JAXALIGN_JUDGE_URL"
MODEL_VARIABLE = "JAXALIGN_JUDGE_MODEL"

CHARACTERS_A_TOKEN = 4
"""How many characters of English a token stands for, roughly; for the estimate alone."""

UNREADABLE, REFUSED_TO_JUDGE, UNANSWERED = "unreadable", "refused", "no answer from the server"

_REFUSAL = re.compile(
    r"\s*(?:i['’]?m (?:very )?sorry|sorry|i (?:can(?:not|['’]t)|won['’]t|am (?:not able|unable)))\b", re.I
)
"""How a chat model declines to judge. Only an answer without any JSON is looked at."""


class RequestEstimate(NamedTuple):
    """What judging will take at least: requests, and about how many tokens of prompts and, at most, of answers."""

    requests: int
    prompt_tokens: int
    answer_tokens: int


def judge_model(environment: Mapping[str, str] = os.environ) -> str:
    """Return the model's name at the judge's server, from the environment; UserError if it is not set."""
    return _setting(environment, MODEL_VARIABLE, "the name by which the server knows the judge")


def judge_url(environment: Mapping[str, str] = os.environ) -> str:
    """Return the address of the judge's server, from the environment.

    Raises:
        UserError: it is not set, or is not an address, or holds what may be secret.
    """
    url = _setting(environment, URL_VARIABLE, "http://localhost:8000/v1")
    if any(sign in url for sign in "@?#"):
        raise UserError(
            f"{URL_VARIABLE} has more than an address in it (a name or a password before @, or a part after ? or #): "
            f"give the address alone, and the key as {JUDGE_KEY_VARIABLE}"
        )
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and url.isascii() and parts.port != 0
    except ValueError:  # from a port that is no number
        good = False
    if not good or set(url) & set(" \t\n"):
        raise UserError(
            f"{URL_VARIABLE} is not the address of a server: set it to one such as http://localhost:8000/v1"
        )
    return url


def _setting(environment: Mapping[str, str], name: str, example: str) -> str:
    value = environment.get(name, "").strip()
    if not value:
        raise UserError(f"missing: {name} in the environment (a judge at a server needs it, such as {example})")
    return value


class _Unusable(Fault):
    """An answer from which no step of the rubric can be read; `missing` says why, and `raw` is what it says."""

    def __init__(self, missing: str, raw: str):
        super().__init__(f"gave an answer that is {missing} ({said(raw)})")
        self.missing, self.raw = missing, without_keys(raw)


@dataclasses.dataclass
class RequestCount:
    """How many requests were sent."""

    sent: int = 0


@dataclasses.dataclass(frozen=True)
class RubricApi:
    """A model at a server that is asked to read a rubric, and to answer in JSON.

    The secret key is in $JAXALIGN_JUDGE_KEY. An answer that cannot be read, and an error that may pass, are asked for
    again; after `tries` tries the judgement is missing. The address is no part of the identity: a model is known by its
    name.

    Args:
        rubric: the rubric.
        url: the address with the version, such as http://localhost:8000/v1.
        model: the name by which the server knows the judging model.
        temperature: of the judging model.
        max_tokens: the longest answer, in tokens; a model that thinks first needs more.
        extra: further fields of a request, by which those above may be replaced; None leaves a field out.
        number: which of several judgements of the same exchange this is, counted from 0; it is the seed too.
        concurrency: requests at the same time, at most.
        tries: how often an exchange is asked about, at most.
        timeout: how long a request may take, in seconds.
        max_requests: requests that may be sent, at most, tries included; None for no limit.
        spent: counts the requests that were sent; copies of this judge share it.
        pause: waits so many seconds; tests replace it.
    """

    rubric: Rubric
    url: str
    model: str
    temperature: float = 0.0
    max_tokens: int = 300
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    number: int = 0
    concurrency: int = 16
    tries: int = 4
    timeout: float = 120.0
    max_requests: int | None = None
    spent: RequestCount = dataclasses.field(default_factory=RequestCount)
    pause: Callable[[float], Awaitable[None]] = anyio.sleep
    name: str = "rubric_api"

    @property
    def scale(self) -> Scale:
        """The scale of the rubric."""
        return self.rubric.scale

    @property
    def identity(self) -> str:
        """A hash of the model's name, the rubric and all that is sent."""
        body = self._body(Exchange("Is it\nlate?", "No, it is not."))
        return digest([self.name, 1, body, dataclasses.asdict(self.rubric), self.number], 32)

    def estimate(self, exchanges: Sequence[Exchange]) -> RequestEstimate:
        """Return what judging these exchanges takes if every answer can be read at once."""
        characters = sum(len(self._text(exchange)) for exchange in exchanges)
        return RequestEstimate(len(exchanges), characters // CHARACTERS_A_TOKEN, len(exchanges) * self.max_tokens)

    def check(self) -> None:
        """Check that the server answers and knows the model, before anything long begins.

        Raises:
            UserError: it does not answer, refuses the key, or has a list of models without this one.
        """
        with connected(self._server(lambda: None)) as connection:
            connection.check_models([self.model], MODEL_VARIABLE)

    def check_budget(self, requests: int) -> None:
        """Raise UserError if so many requests are more than what is left of `max_requests`."""
        if self.max_requests is not None and requests > self.max_requests - self.spent.sent:
            raise UserError(
                f"{requests:,} judgements need as many requests to the judge, and "
                f"{self.max_requests - self.spent.sent:,} of judge.max_requests={self.max_requests:,} are left: raise "
                "it, or judge fewer"
            )

    def judge(self, exchanges: Sequence[Exchange], on_done: Callable[[int, Judgement], None]) -> list[Judgement]:
        """Return the judgements (see `Judge`). `raw` is the judge's answer.

        Raises:
            UserError: the requests would be or have become more than `max_requests`, the server refuses any request, or
                it has given no answer to many exchanges in a row. Judgements that were there before are kept.
        """
        spent = self.spent
        self.check_budget(len(exchanges))

        def spend() -> None:
            if self.max_requests is not None and spent.sent >= self.max_requests:
                raise UserError(
                    f"the judge was asked judge.max_requests={self.max_requests:,} times, and judgements are still "
                    "missing: type the command again to go on, with a larger limit if the answers cannot be read"
                )
            spent.sent += 1

        found: dict[int, Judgement] = {}
        silent = 0

        def keep(number: int, judgement: Judgement) -> None:
            nonlocal silent
            found[number] = judgement
            on_done(number, judgement)
            silent = silent + 1 if judgement.missing == UNANSWERED else 0
            if silent >= max(self.concurrency, 8):
                raise UserError(
                    f"{self.url} gave no answer for {silent} exchanges in a row ({judgement.raw}): is the server up, "
                    f"and {URL_VARIABLE} right? Type the command again to go on"
                )

        if exchanges:
            with connected(self._server(spend)) as connection:
                connection.check_models([self.model], MODEL_VARIABLE)
                jobs = (partial(self._judge_one, connection, exchange) for exchange in exchanges)
                connection.ask_all(jobs, self.concurrency, keep)
        return [found[number] for number in range(len(exchanges))]

    def _server(self, spend: Callable[[], None]) -> JsonServer:
        return JsonServer(
            self.url, self.tries - 1, self.timeout, self.pause, JUDGE_KEY_VARIABLE, URL_VARIABLE, spend=spend
        )

    def _text(self, exchange: Exchange) -> str:
        answers = ", ".join(json.dumps(step.answer) for step in self.rubric.steps)
        return (
            f"{self.rubric.text(exchange)}Answer with one JSON object and with nothing else. It has two keys: "
            f'"reason", one sentence, and "{self.rubric.asked.lower()}", one of {answers}.\n'
        )

    def _body(self, exchange: Exchange) -> dict[str, Any]:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": self._text(exchange)}],
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": self.number,
            **self.extra,
        }
        return {name: value for name, value in body.items() if value is not None}

    async def _judge_one(self, connection: Connection, exchange: Exchange) -> Judgement:
        """Return one judgement; it is missing if the server refuses this request, or no try gave one."""
        try:
            return await connection.ask("chat/completions", self._body(exchange), self._read)
        except RefusedRequest as error:
            return Judgement(None, None, str(error), REFUSED_TO_JUDGE)
        except NoAnswer as error:
            if isinstance(error.fault, _Unusable):
                return Judgement(None, None, error.fault.raw, error.fault.missing)
            return Judgement(None, None, str(error), UNANSWERED)

    def _read(self, answer: Any) -> Judgement:
        """Return the judgement in the server's JSON; raise `_Unusable` if there is none."""
        try:
            choice = answer["choices"][0]
            message, reason = choice["message"], choice.get("finish_reason")
            text, refusal = message.get("content") or "", message.get("refusal")
        except (KeyError, IndexError, TypeError, AttributeError):
            raise _Unusable(UNREADABLE, json.dumps(answer)) from None
        if refusal or reason == "content_filter":
            raise _Unusable(REFUSED_TO_JUDGE, str(refusal or text))
        if not isinstance(text, str):
            raise _Unusable(UNREADABLE, json.dumps(answer))
        step = read_step(text, self.rubric) if reason == "stop" else None  # else it may not be whole
        if step is None:
            raise _Unusable(REFUSED_TO_JUDGE if "{" not in text and _REFUSAL.match(text) else UNREADABLE, text)
        return self.rubric.judgement(step, without_keys(text))


def read_step(text: str, rubric: Rubric) -> int | None:
    """Return the number of the step that a judge's answer names, or None if it does not name exactly one.

    The answer is one JSON object, alone or in a fence, behind whatever the judge thinks in <think>. An object that
    stands in other text is not read: it may be quoted from the response.
    """
    text = text.rpartition("</think>")[2].strip()
    fence = re.fullmatch(r"```(?:json)?\s*(\{.*\})\s*```", text, re.S)
    try:
        found = json.loads(fence[1] if fence else text, object_pairs_hook=list)
    except (ValueError, RecursionError):
        return None
    key = rubric.asked.lower()
    named = [value for name, value in found if name == key] if _is_object(found) else []
    if len(named) != 1 or isinstance(named[0], bool) or not isinstance(named[0], str | int | float):
        return None
    value = f"{named[0]:g}" if isinstance(named[0], float) else str(named[0]).strip()
    answers = [step.answer.casefold() for step in rubric.steps]
    return answers.index(value.casefold()) if value.casefold() in answers else None


def _is_object(found: Any) -> bool:
    """Return whether JSON whose objects were read as lists of pairs is an object, not a list."""
    return isinstance(found, list) and all(isinstance(pair, tuple) for pair in found)
