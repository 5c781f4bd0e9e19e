"""JSON from a server over HTTP: with a deadline, a limit, tries after errors that may pass, and a secret key."""

import dataclasses
import datetime
import email.utils
import json
import os
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
import httpx2

from jaxalign.errors import UserError

Read = TypeVar("Read")

KEY_VARIABLE = "OPENAI_API_KEY"
PASSING = (408, 409, 425, 429)
"""HTTP statuses after which a request is sent again; so are all of 500 and above."""

LONGEST_PAUSE = 60.0
"""The longest time between two tries, in seconds."""

LARGEST_ANSWER = 8 << 20
"""The largest answer that is read, in bytes."""


class Fault(Exception):  # noqa: N818 (it says what an answer has, as an error in it)
    """What is wrong with an answer, as the words that follow the server's address. The request is sent again.

    `pause` is the time to wait before that, in seconds, if the server wants one.
    """

    def __init__(self, words: str, pause: float = 0.0):
        super().__init__(words)
        self.pause = pause


class NoSuchPath(Exception):  # noqa: N818 (some servers have no list of models)
    """The server has nothing to GET at a path."""


@dataclasses.dataclass(frozen=True)
class JsonServer:
    """A server that answers in JSON. A secret key is read from $OPENAI_API_KEY for each request, and stored nowhere.

    Redirects are not followed, because the key would go to whatever host they name.

    Args:
        url: the address that the paths of requests are added to.
        retries: how often a request is sent again after an error that may pass.
        timeout: how long a whole request may take, from the connection to the last byte of the answer, in seconds.
        pause: waits so many seconds; tests replace it.
    """

    url: str
    retries: int
    timeout: float
    pause: Callable[[float], Awaitable[None]] = anyio.sleep

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
            raise UserError(f"the proxy that the environment names cannot be used: {said(str(error))}") from None
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
            UserError: the server refuses the request, or did not give a usable answer in any of the tries.
            NoSuchPath: there is nothing to GET at the path.
        """
        where = f"{self.url.rstrip('/')}/{path}"
        sent = None if body is None else json.dumps(body).encode()
        words = ""
        for tried in range(self.retries + 1):
            wanted = 0.0
            try:
                with anyio.fail_after(self.timeout):
                    status, headers, content = await _exchange(client, where, sent)
                return read(_checked(where, sent is None, status, headers, content))
            except Fault as fault:
                words, wanted = str(fault), fault.pause
            except TimeoutError:
                words = f"does not answer (not in full within {self.timeout:g} s)"
            except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
                words = f"does not answer ({said(str(error) or type(error).__name__)})"
            if tried < self.retries:
                await self.pause(min(max(wanted, 0.5 * 2 ** min(tried, 7)), LONGEST_PAUSE))
        raise UserError(f"{where} {words}; tried {self.retries + 1} times: is the server up, and engine.url right?")


async def _exchange(client: httpx2.AsyncClient, where: str, sent: bytes | None) -> tuple[int, httpx2.Headers, bytes]:
    """Return status, headers and body of one answer; the body of a redirect is not read."""
    headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
    if key := secret_key():
        headers["Authorization"] = f"Bearer {key}"
    content = bytearray()
    async with client.stream("GET" if sent is None else "POST", where, content=sent, headers=headers) as response:
        if not 300 <= response.status_code < 400:
            async for part in response.aiter_raw():
                content += part
                if len(content) > LARGEST_ANSWER:
                    raise Fault(f"answers with more than {LARGEST_ANSWER >> 20} MiB")
    return response.status_code, response.headers, bytes(content)


def _checked(where: str, listing: bool, status: int, headers: httpx2.Headers, content: bytes) -> Any:
    """Return the JSON of an answer; raise for a status or an error in it (see `JsonServer.ask`)."""
    if 300 <= status < 400:
        place = headers.get("Location", "").partition("?")[0]
        raise UserError(
            f"{where} redirects to {said(place)}, and redirects are not followed, because the key would go with them: "
            "if that is the right server, give its address as engine.url"
        )
    if status in (404, 405) and listing:
        raise NoSuchPath
    if status in (401, 403):
        raise UserError(f"{where} refuses the key ({status}): set {KEY_VARIABLE}")
    if status >= 400:
        words = f"answered {status}: {said(_message(content))}"
        if status in PASSING or status >= 500:
            raise Fault(words, retry_after(headers.get("Retry-After", "")))
        hint = "; does the server have completions (not chat alone)?" if status == 404 else ""
        raise UserError(f"{where} {words}{hint}")
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        raise Fault("does not answer in JSON") from None
    if isinstance(answer, dict) and answer.get("error"):
        raise Fault(f"answered {status} with an error: {said(_message(content))}")
    return answer


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


def secret_key() -> str:
    """Return the key in $OPENAI_API_KEY without space around it, or ""; UserError if it cannot be a key."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if key and not re.fullmatch("[!-~]+", key):
        raise UserError(
            f"{KEY_VARIABLE} holds a space, a line break or a letter outside ASCII, as no key does: set it again"
        )
    return key


def said(text: str) -> str:
    """Return the first line of what a server says, for an error line: without control characters and the key, cut.

    >>> said("\\x1b[31mno\\x07 more\\nand so on")
    '[31mno more'
    """
    line = next((line for line in text.splitlines() if line.strip()), "nothing")[:10_000]
    line = "".join(filter(str.isprintable, line))
    if key := secret_key():
        for form in {key, json.dumps(key)[1:-1]}:
            line = line.replace(form, "***")
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
