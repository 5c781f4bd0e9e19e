"""JSON from a server over HTTP: with a deadline, a limit, tries after errors that may pass, and a secret key."""

import dataclasses
import datetime
import email.utils
import json
import os
import random
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
import httpx2

from jaxalign.errors import UserError

Read = TypeVar("Read")

KEY_VARIABLE = "OPENAI_API_KEY"
JUDGE_KEY_VARIABLE = "JAXALIGN_JUDGE_KEY"

PASSING = (408, 409, 425, 429)
"""HTTP statuses after which a request is sent again; so are all of 500 and above."""

UNFIT = (400, 413, 422)
"""HTTP statuses that refuse this one request, as one that is too long or that a filter stops."""

LONGEST_PAUSE = 60.0
"""The longest time between two tries, in seconds, before up to a quarter is added by chance."""

LARGEST_ANSWER = 8 << 20
"""The largest answer that is read, in bytes."""


class Fault(Exception):  # noqa: N818 (it says what an answer has, as an error in it)
    """An answer that cannot be used. Its text follows the server's address in the error. The request is sent again.

    `pause` is the time to wait before that, in seconds, if the server wants one.
    """

    def __init__(self, words: str, pause: float = 0.0):
        super().__init__(words)
        self.pause = pause


class NoSuchPath(Exception):  # noqa: N818 (some servers have no list of models)
    """The server has nothing to GET at a path."""


class RefusedRequest(UserError):  # noqa: N818 (it is a UserError)
    """The server refuses one request, and may well answer others."""


class NoAnswer(UserError):  # noqa: N818 (it is a UserError)
    """The server did not give a usable answer in any of the tries. `fault` is what the last answer had, if any came."""

    def __init__(self, message: str, fault: Fault | None):
        super().__init__(message)
        self.fault = fault


@dataclasses.dataclass(frozen=True)
class JsonServer:
    """A server that answers in JSON. A secret key is read from the environment for each request, and stored nowhere.

    Redirects are not followed, because the key would go to whatever host they name.

    Args:
        url: the address that the paths of requests are added to.
        retries: how often a request is sent again after an error that may pass.
        timeout: how long a whole request may take, from the connection to the last byte of the answer, in seconds.
        pause: waits so many seconds; tests replace it.
        key_variable: the environment variable with the key.
        setting: what the user sets to give the address; for error lines.
        spend: is called before each request that is sent; it may raise a UserError instead of having it sent.
        chance: a number from 0 to 1 that decides how much longer a pause is, up to a quarter, so that requests that
            failed together do not come back together; tests replace it.
    """

    url: str
    retries: int
    timeout: float
    pause: Callable[[float], Awaitable[None]] = anyio.sleep
    key_variable: str = KEY_VARIABLE
    setting: str = "engine.url"
    spend: Callable[[], None] = lambda: None
    chance: Callable[[], float] = random.random

    def client(self) -> httpx2.AsyncClient:
        """Return a client, which keeps its connections until it is closed.

        Raises:
            UserError: the proxies or the certificates that the environment names do not work.
        """
        kept = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        try:
            # No time-outs of single reads: each request has a deadline instead.
            return httpx2.AsyncClient(timeout=None, limits=kept, follow_redirects=False)
        except (ValueError, ImportError, httpx2.InvalidURL) as error:  # from HTTP_PROXY, ALL_PROXY, ...
            names = [
                name for name in os.environ if name.lower() in ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
            ]
            why = f" ({said(str(error))})" if isinstance(error, ImportError) else ""  # others may quote a password
            raise UserError(
                f"the proxy of {' or '.join(sorted(names))} cannot be used{why}: unset it, or write it as "
                "http://HOST:PORT, with all but letters and digits of a name or a password as %XX"
            ) from None
        except OSError as error:  # from SSL_CERT_FILE or SSL_CERT_DIR
            raise UserError(
                f"the certificates cannot be read ({said(str(error))}): set SSL_CERT_FILE to a file that has them"
            ) from None

    async def ask(
        self, client: httpx2.AsyncClient, path: str, body: dict[str, Any] | None, read: Callable[[Any], Read]
    ) -> Read:
        """Return what `read` makes of the server's JSON; try errors that may pass again.

        Args:
            client: see `client`.
            path: is added to the address.
            body: the JSON to POST; None sends a GET.
            read: is called with the answer, and raises a `Fault` for one that it cannot use.

        Raises:
            NoAnswer: the server did not give a usable answer in any of the tries.
            RefusedRequest: the server refuses this request.
            UserError: the server refuses any request.
            NoSuchPath: there is nothing to GET at the path.
        """
        where = f"{self.url.rstrip('/')}/{path}"
        sent = None if body is None else json.dumps(body).encode()
        words, last = "", None
        for tried in range(self.retries + 1):
            wanted, last, answered = 0.0, None, False
            if sent is not None:
                self.spend()
            try:
                with anyio.fail_after(self.timeout):
                    status, headers, content = await _exchange(client, where, sent, secret_key(self.key_variable))
                answer = self._checked(where, sent is None, status, headers, content)
                answered = True
                return read(answer)
            except Fault as fault:
                words, wanted, last = str(fault), fault.pause, fault
            except TimeoutError:
                words = f"does not answer (not in full within {self.timeout:g} s)"
            except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
                words = f"does not answer ({said(str(error) or type(error).__name__)})"
            if tried < self.retries:
                pause = min(max(wanted, 0.5 * 2 ** min(tried, 7)), LONGEST_PAUSE)
                await self.pause(pause * (1 + self.chance() / 4))
        hint = "" if answered else f": is the server up, and {self.setting} right?"
        raise NoAnswer(f"{where} {words}; tried {self.retries + 1} times{hint}", last)

    def _checked(self, where: str, listing: bool, status: int, headers: httpx2.Headers, content: bytes) -> Any:
        """Return the JSON of an answer; raise for a status or an error in it (see `JsonServer.ask`)."""
        if 300 <= status < 400:
            place = headers.get("Location", "").partition("?")[0]
            raise UserError(
                f"{where} redirects to {said(place)}, and redirects are not followed, because the key would go with "
                f"them: if that is the right server, give its address as {self.setting}"
            )
        if status in (404, 405) and listing:
            raise NoSuchPath
        if status in (401, 403):
            raise UserError(f"{where} refuses the key ({status}): set {self.key_variable}")
        if status >= 400:
            words = f"answered {status}: {said(_message(content))}"
            if status in PASSING or status >= 500:
                raise Fault(words, retry_after(headers.get("Retry-After", "")))
            if status in UNFIT:
                raise RefusedRequest(f"{where} {words}")
            hint = f"; is {self.setting} right, and does the server have {where.removeprefix(self.url).strip('/')}?"
            raise UserError(f"{where} {words}{hint if status == 404 else ''}")
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError):
            raise Fault("does not answer in JSON") from None
        if isinstance(answer, dict) and answer.get("error"):
            raise Fault(f"answered {status} with an error: {said(_message(content))}")
        return answer


async def _exchange(
    client: httpx2.AsyncClient, where: str, sent: bytes | None, key: str
) -> tuple[int, httpx2.Headers, bytes]:
    """Return status, headers and body of one answer; the body of a redirect is not read."""
    headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    content = bytearray()
    async with client.stream("GET" if sent is None else "POST", where, content=sent, headers=headers) as response:
        if not 300 <= response.status_code < 400:
            async for part in response.aiter_raw():
                content += part
                if len(content) > LARGEST_ANSWER:
                    raise Fault(f"answers with more than {LARGEST_ANSWER >> 20} MiB")
    return response.status_code, response.headers, bytes(content)


def _message(content: bytes) -> str:
    """Return the error message in an answer, or the whole answer if it has none."""
    text = content.decode("utf-8", "replace")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    error = found.get("error", found) if isinstance(found, dict) else found
    message = error.get("message", error) if isinstance(error, dict) else error
    return message if isinstance(message, str) else json.dumps(message, ensure_ascii=False)


def secret_key(variable: str = KEY_VARIABLE) -> str:
    """Return the key in an environment variable without space around it, or ""; UserError if it cannot be a key."""
    key = os.environ.get(variable, "").strip()
    if key and not re.fullmatch("[!-~]+", key):
        raise UserError(
            f"{variable} holds a space, a line break or a letter outside ASCII, as no key does: set it again"
        )
    return key


SHORTEST_KEY = 8
"""Shorter keys are the dummies of local servers, such as EMPTY, and parts of them are words."""


def without_keys(text: str) -> str:
    """Return a text without the keys of the environment, and without parts of them, also as JSON writes them."""
    for variable in (KEY_VARIABLE, JUDGE_KEY_VARIABLE):
        if key := os.environ.get(variable, "").strip():
            for form in {key, json.dumps(key)[1:-1]}:
                for part in (form, *(key_parts(form) if len(form) >= SHORTEST_KEY else ())):
                    text = text.replace(part, "***")
    return text


def key_parts(key: str) -> list[str]:
    """Return all parts of a key that are three quarters as long as it: with such a part, the rest can be guessed.

    >>> key_parts("abcdefgh")
    ['abcdef', 'bcdefg', 'cdefgh']
    """
    size = -(-len(key) * 3 // 4)
    return [key[start : start + size] for start in range(len(key) - size + 1)]


def said(text: str) -> str:
    """Return the first line of what a server says, for an error line: without control characters and keys, cut.

    >>> said("\\x1b[31mno\\x07 more\\nand so on")
    '[31mno more'
    """
    # Keys are looked for before anything is cut, and without the characters that could stand in the middle of one.
    kept = "".join(letter if letter.isprintable() else "\n" * (letter in "\r\n") for letter in text)
    whole = kept.replace("\n", "")
    if without_keys(whole).count("***") > without_keys(kept).count("***"):
        return "what it says holds the key, so it is not shown"
    line = next((line for line in without_keys(kept).split("\n") if line.strip()), "nothing")
    return line.strip()[:300]


def retry_after(text: str) -> float:
    """Return the seconds that a Retry-After header asks to wait (RFC 9110, 10.2.3); 0 if it is neither of its forms.

    >>> retry_after("7"), retry_after("1e3"), retry_after("-1"), retry_after("soon")
    (7.0, 0.0, 0.0, 0.0)
    """
    if re.fullmatch("[0-9]{1,9}", text):
        return float(text)
    if not re.fullmatch("[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT", text):
        return 0.0
    try:
        date = email.utils.parsedate_to_datetime(text)
    except ValueError:  # the 30th of February
        return 0.0
    return max((date - datetime.datetime.now(datetime.UTC)).total_seconds(), 0.0)
