"""A server that errs, redirects, drips, floods or repeats the secret key."""

import datetime
import time

import anyio
import pytest
from openai_server import serving

from jaxalign.errors import UserError
from jaxalign.inference import server as asking
from jaxalign.inference.server import JsonServer, retry_after, said

KEY = "sk-S3cret+/="


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving() as made:
        yield made


def ask(server, **changes):
    """Send one request, and return the JSON of the answer."""
    one = JsonServer(**{"url": server.url, "retries": 0, "timeout": 5.0, "pause": pause} | changes)

    async def once():
        async with one.client() as client:
            return await one.ask(client, "completions", {"model": "m", "prompt": "p", "seed": 0}, lambda found: found)

    return anyio.run(once)


async def pause(seconds):
    pass


def refused(server, **changes):
    """Return the line with which a request ends."""
    with pytest.raises(UserError) as caught:
        ask(server, **changes)
    return str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed_so_the_key_stays_where_it_was_sent(server, status):
    with serving() as other:
        server.script = [lambda handler: handler.give(status, {}, {"Location": f"{other.url}/completions?token=t0ken"})]
        line = refused(server, retries=3)
        assert f"redirects to {other.url}/completions, and redirects are not followed" in line and "t0ken" not in line
        assert other.keys == set() and server.keys == {f"Bearer {KEY}"}


@pytest.mark.parametrize(
    "message",
    [
        f"Incorrect API key provided: Bearer {KEY}",
        f"no\x1b[2J\x07 {KEY[:4]}\x00\u202e{KEY[4:]}",
        {"given": [KEY]},
        {"message": {"key": KEY}},
        "x" * 295 + KEY,
    ],
)
@pytest.mark.parametrize("status", [200, 400, 503])
def test_what_a_server_says_is_shown_without_the_key_and_without_control_characters_and_cut(server, message, status):
    server.script = [lambda handler: handler.give(status, {"error": message})]
    line = refused(server)
    assert "***" in line or len(line) > 300
    assert KEY not in line and KEY[:8] not in line and line.isprintable() and len(line) < 500


def test_a_page_that_is_no_json_is_shown_in_part_and_without_the_key(server):
    page = f"<html>{KEY}</html>".encode() + b"\xff" * 100_000
    server.script = [b"HTTP/1.0 400 Bad\r\n\r\n" + page]
    line = refused(server)
    assert "answered 400: <html>***</html>" in line and len(line) < 500


def test_a_line_break_behind_the_key_is_left_out_and_any_other_character_that_no_key_has_is_refused(
    server, monkeypatch
):
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\r\n")
    assert ask(server)["choices"] and server.keys == {f"Bearer {KEY}"}
    for wrong in (f"{KEY}\r\nX-Other: 1", f"{KEY} {KEY}", f"{KEY}é"):
        monkeypatch.setenv("OPENAI_API_KEY", wrong)
        line = refused(server)
        assert line.startswith("OPENAI_API_KEY holds a space") and KEY not in line
    assert server.keys == {f"Bearer {KEY}"}
    monkeypatch.setenv("OPENAI_API_KEY", " ")
    ask(server)
    assert None in server.keys


def dripping(start):
    """Send the beginning of an answer, and then a byte now and then for ten seconds."""

    def step(handler):
        try:
            handler.wfile.write(start)
            for _ in range(200):
                handler.wfile.write(b" ")
                handler.wfile.flush()
                time.sleep(0.05)
        except OSError:  # the client has gone
            pass

    return step


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"HTTP/1.1 200 OK\r\nX-A: "])
def test_a_deadline_is_for_the_whole_request_however_often_a_byte_comes(server, start):
    server.script = [dripping(start)]
    since = time.perf_counter()
    assert "completions does not answer (not in full within 0.3 s)" in refused(server, timeout=0.3)
    assert time.perf_counter() - since < 3


def test_an_answer_without_end_is_read_up_to_a_limit(server, monkeypatch):
    monkeypatch.setattr(asking, "LARGEST_ANSWER", 1 << 20)

    def endless(handler):
        try:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                handler.wfile.write(b" " * 65536)
        except OSError:
            pass

    server.script = [endless]
    assert "answers with more than 1 MiB" in refused(server)


def test_an_error_inside_an_answer_is_tried_again(server):
    inside = [{"error": {"message": "Rate limit", "code": 429}}, {"error": "busy"}]
    server.script = [lambda handler, answer=answer: handler.give(200, answer) for answer in inside]
    assert ask(server, retries=2)["choices"]
    server.script = [lambda handler: handler.give(200, inside[0])] * 2
    assert "completions answered 200 with an error: Rate limit; tried 2 times" in refused(server, retries=1)


def test_json_too_deep_to_read_is_a_fault_and_no_traceback(server):
    server.script = [b"HTTP/1.0 200 OK\r\n\r\n" + b"[" * 100_000, b"HTTP/1.0 400 Bad\r\n\r\n" + b"[" * 100_000]
    assert "does not answer in JSON" in refused(server)
    assert "answered 400: [[[" in refused(server)


def test_only_the_two_forms_of_retry_after_are_read():
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=30)
    assert 25 < retry_after(soon.strftime("%a, %d %b %Y %H:%M:%S GMT")) <= 30
    assert retry_after("0") == 0 and retry_after("120") == 120
    past, never = "Wed, 21 Oct 2015 07:28:00 GMT", "Mon, 30 Feb 2026 07:28:00 GMT"
    for other in (past, never, "1.5", "-7", "1e9", "٣", "9" * 400, "nan", "", "7 seconds"):
        assert retry_after(other) == 0


def test_a_proxy_of_the_environment_that_cannot_be_used_is_one_line(server, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "nonsense://me:passw0rd@host")
    assert refused(server).startswith("the proxy of HTTP_PROXY cannot be used: unset it, or write it as http://")
    monkeypatch.setenv("HTTP_PROXY", "http://me:pass/w0rd@host:9")
    assert "pass" not in refused(server).replace("password", "")


def test_certificates_that_cannot_be_read_are_one_line(server, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent")
    line = refused(server)
    assert line.startswith("the certificates cannot be read (") and "set SSL_CERT_FILE to a file" in line


def test_nothing_said_is_called_nothing():
    assert said("\n \n") == "nothing"


def test_a_key_is_not_shown_whole_in_part_cut_or_split(monkeypatch):
    key = "sk-0123456789abcdef"
    monkeypatch.setenv("OPENAI_API_KEY", key)
    for text in (key, key[:-1], key[2:], "\x07" * 9_990 + key, f"{key[:-1]}\n{key[-1]}", "\x07".join(key)):
        for start in range(len(key) - 13):
            assert key[start : start + 14] not in said(f"refused: {text} is no key")
    assert said("refused\nwith a second line") == "refused"
