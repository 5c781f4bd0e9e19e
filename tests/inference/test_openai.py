"""The engine that asks a server, against a server of our own on this machine."""

import dataclasses
import threading

import numpy as np
import pytest
from openai_server import hashed, serving

from jaxalign.data.encoding import Encoder
from jaxalign.errors import UserError
from jaxalign.inference.generations import PromptRequest, sample_missing
from jaxalign.inference.openai import OpenAIEngine, sample_seed
from jaxalign.inference.sampling_params import Request, SamplingParams
from jaxalign.runs.records import read_records


@pytest.fixture
def server():
    with serving() as made:
        yield made


@pytest.fixture
def make(server, tokenizer):
    """Make engines that ask the server; they note their pauses instead of waiting."""

    def build(pauses=None, **changes):
        async def pause(seconds):
            if pauses is not None:
                pauses.append(seconds)

        settings = {"models": ("base", "power"), "concurrency": 3, "retries": 2, "timeout": 5.0, "tokenizer": tokenizer}
        return OpenAIEngine(**{"url": server.url, "context": 64, "pause": pause} | settings | changes)

    return build


SAMPLING = SamplingParams(max_tokens=9, temperature=0.5, seed=3)


def requests(*adapters):
    return [Request(np.arange(3, 6 + number, dtype=np.int32), (0, 1, 4), a) for number, a in enumerate(adapters)]


def texts(results):
    return [[completion.text for completion in row] for row in results]


def test_a_sample_is_the_same_whatever_the_order_and_concurrency(make, server):
    both = make().sample(requests(0, 1), SAMPLING)
    assert [[completion.index for completion in row] for row in both] == [[0, 1, 4]] * 2
    alone = make(concurrency=1).sample(requests(0, 1)[::-1], SAMPLING)[::-1]
    assert texts(both) == texts(alone)
    assert len({text for row in texts(both) for text in row}) == 6
    body = server.asked[0]
    assert (body["max_tokens"], body["temperature"], body["top_p"], body["n"]) == (9, 0.5, 1.0, 1)
    assert body["prompt"] == [3, 4, 5] and "stop" not in body


def test_what_a_server_would_fill_in_is_sent_unless_it_is_a_strict_one(make, server):
    make().sample(requests(0)[:1], SAMPLING)
    extra = {name: server.asked[0][name] for name in ("top_k", "min_p", "repetition_penalty", "skip_special_tokens")}
    assert extra == {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "skip_special_tokens": False}
    make(strict=True).sample(requests(0)[:1], SAMPLING)
    own = {"model", "prompt", "n", "max_tokens", "temperature", "top_p", "seed"}
    assert set(server.asked[-1]) == own and set(server.asked[0]) == own | set(extra)


def test_seeds_differ_by_seed_prompt_and_index():
    one, other = np.array([1, 2]), np.array([1, 3])
    seeds = {sample_seed(seed, prompt, index) for seed in (0, 1) for prompt in (one, other) for index in (0, 1)}
    assert len(seeds) == 8 and all(0 <= seed < 2**31 for seed in seeds)


def test_a_prompt_may_be_sent_as_text(make, server, tokenizer):
    make(send="text").sample([Request(tokenizer.encode("Why?"))], SamplingParams(max_tokens=4, top_k=7, stop=("x",)))
    (body,) = server.asked
    assert (body["prompt"], body["top_k"], body["stop"]) == ("Why?", 7, ["x"])
    # The server adds the BOS: it is sent once, not twice.
    with_bos = dataclasses.replace(tokenizer, bos_id=1)
    tokens = Encoder(with_bos).prompt("Why?")
    assert tokens[0] == 1
    for send, wanted in (("text", "Why?"), ("tokens", tokens.tolist())):
        make(send=send, tokenizer=with_bos).sample([Request(tokens)], SamplingParams(max_tokens=4))
        assert server.asked[-1]["prompt"] == wanted


def test_errors_that_may_pass_are_tried_again(make, server):
    pauses = []
    server.script = [(500, {}), (429, {"Retry-After": "7"})]
    (row,) = make(concurrency=1, pauses=pauses).sample(requests(0), SAMPLING)
    assert len(row) == 3
    assert 0.5 <= pauses[0] <= 0.625 and 7.0 <= pauses[1] <= 8.75  # up to a quarter longer, by chance


def test_errors_that_stay_are_one_line_and_what_has_ended_is_kept(make, server):
    server.script = [(200, {}), *[(503, {})] * 3]
    done = []
    with pytest.raises(UserError, match="answered 503: not now; tried 3 times") as caught:
        make(concurrency=1).sample(requests(0), SAMPLING, on_done=lambda _, completion: done.append(completion.index))
    assert done == [0] and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{",  # cut short
        b"\x00garbage\r\n\r\n",
        b"HTTP/1.1 503 Later\r\nContent-Length: 500\r\n\r\n{",
        b"",
    ],
)
def test_half_an_answer_or_none_in_http_is_asked_for_again(make, server, answer):
    server.script = [answer, answer]
    (row,) = make(concurrency=1).sample(requests(0), SAMPLING)
    assert len(row) == 3
    server.script = [answer] * 3
    with pytest.raises(UserError, match="tried 3 times") as caught:
        make(concurrency=1).sample(requests(0), SAMPLING)
    assert "\n" not in str(caught.value)


def test_what_is_on_its_way_beside_a_failure_is_recorded(make, server):
    refused, done = threading.Event(), []

    def reply(body):
        refused.wait(5)
        return hashed(body)

    def refuse(handler):
        handler.give(400, {"error": "no"})
        threading.Timer(0.5, refused.set).start()

    server.reply, server.script = reply, [(200, {}), (200, {}), refuse]
    with pytest.raises(UserError, match="answered 400"):
        make().sample(requests(0, 1), SAMPLING, on_done=lambda number, one: done.append((number, one.index)))
    assert len(done) == 2 == len(server.asked)  # and nothing new was asked for


@pytest.mark.parametrize(
    ("status", "said"),
    [(400, "answered 400: not now"), (401, "set OPENAI_API_KEY"), (404, "does the server have completions")],
)
def test_errors_that_will_not_pass_are_not_tried_again(make, server, status, said):
    server.script = [(status, {})]
    with pytest.raises(UserError, match=said):
        make(concurrency=1).sample(requests(0), SAMPLING)
    assert server.asked == []


def test_the_key_is_sent_and_never_said(make, server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "s3cret")
    engine = make(concurrency=1)
    engine.sample(requests(0), SAMPLING)
    assert server.keys == {"Bearer s3cret"} and "s3cret" not in repr(engine)
    server.script = [(403, {})]
    with pytest.raises(UserError) as caught:
        engine.sample(requests(0), SAMPLING)
    assert "s3cret" not in str(caught.value)


def test_a_name_that_is_not_served_gets_a_suggestion_unless_the_server_has_no_list(make, server):
    with pytest.raises(UserError, match="serves no model 'powr'; did you mean 'power'"):
        make(models=("powr",)).sample(requests(0), SAMPLING)
    server.list_models = False
    assert make(models=("powr",)).sample(requests(0), SAMPLING)


def test_a_server_that_is_not_there_is_named(make):
    engine = make(url="http://127.0.0.1:9/v1", models=("base",), retries=1)
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9/v1/models does not answer .*tried 2 times"):
        engine.sample(requests(0), SAMPLING)


@pytest.mark.parametrize(
    ("choice", "stop", "end", "text"),
    [
        ({"text": "ab", "finish_reason": "length"}, (), "length", "ab"),
        ({"text": "ab", "finish_reason": "stop"}, (), "eos", "ab"),
        ({"text": "ab", "finish_reason": "stop", "stop_reason": None}, ("Q",), "eos", "ab"),
        ({"text": "ab", "finish_reason": "stop", "stop_reason": "Q"}, ("Q",), "stop", "ab"),
        ({"text": "abQc", "finish_reason": "stop"}, ("Q",), "stop", "ab"),
        ({"text": "abQc", "finish_reason": "length"}, ("c", "Q"), "stop", "ab"),
        ({"text": "ab<|im_end|>", "finish_reason": "stop"}, (), "eos", "ab"),
    ],
)
def test_ends_and_stop_strings_are_as_our_own_engine_has_them(make, server, choice, stop, end, text):
    server.choice = choice
    ((completion, *_),) = make().sample(requests(0), SamplingParams(max_tokens=9, stop=stop))
    assert (completion.end, completion.text) == (end, text)


@pytest.mark.parametrize(
    "answer",
    [
        {"choices": []},
        {"choices": None},
        {"object": "error", "message": "busy"},
        ["a"],
        {"choices": [{"text": None, "finish_reason": "stop"}]},
        {"choices": [{"text": ["a"], "finish_reason": "stop"}]},
        {"choices": [{"text": "half \ud83d of it", "finish_reason": "stop"}]},
    ],
)
def test_an_answer_that_is_no_completion_is_asked_for_again(make, server, answer):
    server.script = [lambda handler: handler.give(200, answer)] * 2
    (row,) = make(concurrency=1).sample(requests(0), SAMPLING)
    assert len(row) == 3
    server.script = [lambda handler: handler.give(200, answer)] * 3
    with pytest.raises(UserError, match=r"gave no completion .*tried 3 times"):
        make(concurrency=1).sample(requests(0), SAMPLING)


def test_an_answer_that_is_longer_than_its_tokens_can_be_is_asked_for_again_and_never_kept(make, server):
    answers = iter(["é" * 4609, "x" * 7_000_000, "é" * 4608])
    server.reply = lambda body: {"text": next(answers), "finish_reason": "length"}
    request = [Request(np.arange(3, 6, dtype=np.int32))]
    ((completion,),) = make(concurrency=1).sample(request, SAMPLING)
    assert completion.text == "é" * 4608  # 9 tokens, 1,024 bytes for each
    server.reply = lambda body: {"text": "x" * 7_000_000, "finish_reason": "stop"}
    kept = []
    with pytest.raises(UserError) as caught:
        make().sample(request, SAMPLING, on_done=lambda *done: kept.append(done))
    line = str(caught.value)
    assert "answered with 7,000,000 bytes of text, and max_tokens=9 was asked for; tried 3 times" in line
    assert not kept and len(line) < 300 and "\n" not in line


@pytest.mark.parametrize("reason", ["abort", "error", "tool_calls", "", None, 7])
def test_an_answer_with_an_unknown_end_is_never_taken_for_whole(make, server, reason):
    reasons = iter([reason, reason, "stop"])
    server.reply = lambda body: {"text": "half an answ", "finish_reason": next(reasons)}
    ((completion,),) = make(concurrency=1).sample([Request(np.arange(3, 6, dtype=np.int32))], SAMPLING)
    assert completion.end == "eos"
    server.reply = lambda body: {"text": "half an answ", "finish_reason": reason}
    with pytest.raises(UserError, match=r"ended an answer with finish_reason=.*tried 3 times"):
        make().sample(requests(0), SAMPLING)


def test_an_answer_with_the_key_in_it_is_not_kept(make, server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-S3cret")
    server.choice = {"text": "you sent sk-S3cret"}
    with pytest.raises(UserError, match="answers with the key of OPENAI_API_KEY") as caught:
        make().sample(requests(0), SAMPLING)
    assert "S3cret" not in str(caught.value)
    monkeypatch.setenv("OPENAI_API_KEY", "EMPTY")  # what servers without keys ask for
    server.choice = {"text": "EMPTY"}
    make().sample(requests(0), SAMPLING)


def test_a_prompt_that_does_not_fit_is_refused_before_anything_is_sent(make, server):
    with pytest.raises(UserError, match="has 3 tokens"):
        make().sample(requests(0), SamplingParams(max_tokens=62))


def test_records_name_the_engine_and_a_resumed_run_asks_for_what_is_missing(make, server, tmp_path):
    asked = [PromptRequest(f"p{number}", np.arange(3, 7 + number, dtype=np.int32)) for number in range(3)]
    path, threads = tmp_path / "g.jsonl", set()
    server.script = [(200, {})] * 2 + [(400, {})]
    with pytest.raises(UserError):
        sample_missing(make(concurrency=1), asked, 2, SAMPLING, path, model="served")
    assert len(read_records(path)) == 2

    def note(*_):
        threads.add(threading.current_thread())

    records = sample_missing(make(), asked, 2, SAMPLING, path, model="served", progress=note)
    assert threads == {threading.current_thread()}
    assert len(server.asked) == 6 and {record["engine"] for row in records for record in row} == {"openai"}
    sample_missing(make(), asked, 2, SAMPLING, path, model="served")
    assert len(server.asked) == 6


def test_what_a_content_filter_cut_is_recorded_as_that_and_asked_for_again(make, server, tmp_path):
    asked, path = [PromptRequest("p", np.arange(3, 7, dtype=np.int32))], tmp_path / "g.jsonl"
    cut = iter([{"text": "so f", "finish_reason": "content_filter"}, {"text": None, "finish_reason": "content_filter"}])
    server.reply = lambda body: next(cut, hashed(body))
    ((one, two),) = sample_missing(make(concurrency=1), asked, 2, SAMPLING, path, model="served")
    assert [(r["text"], r["end"]) for r in (one, two)] == [("so f", "content_filter"), ("", "content_filter")]
    ((one, two),) = sample_missing(make(concurrency=1), asked, 2, SAMPLING, path, model="served")
    assert one["end"] == two["end"] == "eos" and len(read_records(path)) == len(server.asked) == 4
    assert [sample_missing(make(), asked, 2, SAMPLING, path, model="served")] == [[[one, two]]]
    assert len(server.asked) == 4
