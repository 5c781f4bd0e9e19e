"""A chat in the terminal."""

import io
from types import SimpleNamespace

import pytest
from command_line import refused, run
from jobs.answers_of_tiny import QUICK, TINY

from jaxalign.generate import main
from jaxalign.inference.sampler import Sampler
from jaxalign.inference.sampling_params import Completion, SamplingParams
from jaxalign.jobs.terminal import SideBySide, chat
from jaxalign.pretrained.tokenizer import tiny_tokenizer
from jaxalign.runs.progress import plain_console


@pytest.mark.slow
def test_a_chat_remembers_what_was_said(here, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("Hello\n\nAnd you?\n/new\nHello\n/quit\n"))
    seen = []
    sample = Sampler.sample

    def spy(self, requests, *arguments, **options):
        seen.append(self.tokenizer.decode(requests[0].prompt))
        return sample(self, requests, *arguments, **options)

    monkeypatch.setattr(Sampler, "sample", spy)
    # It is held in the chat template whatever the prompt format, and so has a system message.
    printed = run(main, ["model=tiny", "model.system=Be kind, and brief.", *QUICK], capsys)
    assert "chat with base" in printed
    first, second, anew = seen
    assert "Be kind, and brief." in first and first.count("user") == 1
    assert second.startswith(first) and "And you?" in second and second.count("user") == 2
    assert anew == first


def test_a_chat_says_again_what_broken_characters_have_changed(capsys, monkeypatch):
    class Engine:
        engine = "jaxalign"

        def sample(self, requests, sampling, *, on_text):
            for text in ("one", "one two", "one t\N{REPLACEMENT CHARACTER}\x1b[2J"):
                on_text(0, 0, text)
            return [[Completion(0, (3,), text, "length")]]

    monkeypatch.setattr("sys.stdin", io.StringIO("Hello\n"))
    files = SimpleNamespace(tokenizer=tiny_tokenizer(), architecture=SimpleNamespace(context=99))
    chat(plain_console(), Engine(), files, SamplingParams(max_tokens=9), None, "power")
    assert "power: one two\none t\N{REPLACEMENT CHARACTER}[2J\n" in capsys.readouterr().out


def test_what_a_model_says_does_not_steer_the_terminal(capsys):
    with SideBySide(plain_console(), ["base"], 1) as panels:
        panels.update(0, 0, "\x1b]0;title\x07\x1b[2Jone\r\ttwo\nthree é")
    assert "── base ──\n]0;title[2Jone  two\nthree é\n" in capsys.readouterr().out


@pytest.mark.usefixtures("not_loaded", "here")
def test_a_chat_without_any_input_is_refused_first(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    assert "there is no input to chat with: give prompt=" in refused(main, TINY, capsys)


@pytest.mark.usefixtures("not_loaded", "here")
def test_a_chat_with_a_model_without_a_template_is_refused_first(capsys, monkeypatch):
    tokenizer = tiny_tokenizer()
    tokenizer.hf.chat_template = None
    monkeypatch.setattr("jaxalign.pretrained.sources.tiny_tokenizer", lambda: tokenizer)
    assert "this model has no chat template" in refused(main, TINY, capsys)
