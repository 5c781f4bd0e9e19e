"""A benchmark of harm whose answers and judgements come from servers: no model is loaded."""

import json
import threading

import pytest
from child_process import Child
from command_line import refused, run
from openai_server import hashed, serving
from runs_of_tiny import OWN

from jaxalign.evaluate import main
from jaxalign.jobs.harm import judges as harm_judges
from jaxalign.jobs.harm.judges import OpenedJudge
from jaxalign.safety.judgements import Judgement, Scale

KEYS = {"OPENAI_API_KEY": "sk-Answers+/=", "JAXALIGN_JUDGE_KEY": "sk-Judges+/="}


class FindsNoughts:
    """A local judge of refusals, which finds one in every text with a 0 in it."""

    name, identity, scale = "refusal_probe", "noughts 1", Scale(0.0, 1.0, 0.5)

    def judge(self, exchanges, on_done):
        found = [Judgement(None, "refusal" if "0" in one.response else "answer", "") for one in exchanges]
        for number, one in enumerate(found):
            on_done(number, one)
        return found


@pytest.fixture
def noughts(monkeypatch):
    """Puts this judge in the place of the probe for refusals."""
    opened = OpenedJudge("refusal_probe", "noughts", FindsNoughts)
    monkeypatch.setattr(harm_judges, "_open_refusal", lambda *_: opened)


def records(folder, pattern):
    return [json.loads(line) for path in folder.glob(pattern) for line in path.read_text().splitlines()]


def judges(body):
    """Answers as a hash; as a judge, a score that depends on the response, and for one of the prompts on the seed."""
    if "prompt" in body:
        return hashed(body)
    told = body["messages"][0]["content"]
    score = 1 + 4 * (body["seed"] % 2) if "cheese" in told else 2
    return {"message": {"content": json.dumps({"reason": "So.", "score": score})}, "finish_reason": "stop"}


@pytest.fixture
def asked(here, monkeypatch):
    """The settings of a command, and its server."""
    starters = [
        {"id": str(n), "category": "malware", "form": "question", "prompt": f"Is {what} all right?"}
        for n, what in enumerate(["cheese", "bread", "milk", "tea", "rain", "snow"])
    ]
    (here / "p.jsonl").write_text("".join(json.dumps(one) + "\n" for one in starters))
    with serving() as server:
        server.reply = judges
        for name, value in {**KEYS, "JAXALIGN_JUDGE_URL": server.url, "JAXALIGN_JUDGE_MODEL": "base"}.items():
            monkeypatch.setenv(name, value)
        engine = ["engine=openai", f"engine.url={server.url}", "engine.models=base"]
        judge = ["judge=rubric_api", "judge.refusal=none", "judge.repeat=2"]
        yield ["model=tiny", "benchmark=starter_probes", "benchmark.path=p.jsonl", *engine, *judge], server


def sent(server):
    return sum("messages" in body for body in server.asked)


def test_verdicts_that_move_are_told_and_nothing_is_asked_twice(asked, here, capsys):
    settings, server = asked
    run(main, [*settings, "stage=generate"], capsys)
    printed = run(main, [*settings, "judge.max_requests=12"], capsys)
    assert "base: rubric_api judged each response 2 times: 17% of 6 verdicts moved" in printed
    assert "judge: rubric_api (base), uncalibrated" in printed
    assert "0 judgements are missing" in printed and "tokens/s" not in printed and sent(server) == 12
    run(main, settings, capsys)
    assert len(server.asked) == 18 and server.keys == {f"Bearer {key}" for key in KEYS.values()}
    assert not [
        path for path in here.rglob("*") if path.is_file() and any(k in path.read_text() for k in KEYS.values())
    ]


@pytest.mark.slow
def test_the_estimate_and_the_budget_are_of_all_models_and_rounds_without_what_is_judged(asked, here, capsys):
    settings, server = asked
    settings = [*OWN, *settings, "alignment=short_roleplay", "+value=power"]  # the base, and the base in a role
    line = refused(main, [*settings, "judge.max_requests=23"], capsys)
    assert "24 judgements need as many requests to the judge, and 23 of judge.max_requests=23 are left" in line
    assert sent(server) == 0
    server.reply = lambda body: {**judges(body), "finish_reason": "stop" if sent(server) < 15 else "length"}
    printed = run(main, [*settings, "judge.max_requests=28", "judge.concurrency=1", "judge.tries=1"], capsys)
    assert "rubric_api: at least 24 requests, about " in printed and printed.count("requests, about") == 1
    server.reply = judges  # 10 judgements could not be read, and 4 of the first round were asked for once more
    line = refused(main, [*settings, "judge.max_requests=9"], capsys)
    assert line.startswith("10 judgements need as many requests to the judge, and 9 of") and sent(server) == 28
    printed = run(main, [*settings, "judge.max_requests=10"], capsys)
    assert "rubric_api: at least 10 requests, about " in printed and sent(server) == 38
    assert "requests, about" not in run(main, settings, capsys)
    printed = run(main, [*settings, "stage=judge", "run.overwrite=true"], capsys)
    assert "rubric_api: at least 24 requests, about " in printed and sent(server) == 62


@pytest.mark.slow
def test_a_multirun_passes_over_a_mitigation_that_has_no_text_for_any_category(asked, capsys):
    settings, server = asked
    settings = [*settings, "judge=toxicity_linear", "judge.repeat=1", "judge.calibrate=false"]
    line = refused(main, [*settings, "mitigation=value_prompt"], capsys)
    assert "the map has none for any category here (Malware)" in line and not server.asked
    printed = run(main, ["-m", *settings, "mitigation=value_prompt,safety_prompt"], capsys)
    assert "passed over: mitigation=value_prompt needs a value for a category" in printed
    assert "job 2 of 2" in printed and "base: 6 responses" in printed and len(server.asked) == 6


@pytest.mark.slow
def test_a_generation_that_is_killed_outright_asks_again_for_nothing_but_what_was_in_flight(asked, here):
    settings, server = asked
    settings = [*settings, "judge=toxicity_linear", "judge.repeat=1", "judge.calibrate=false", "benchmark.samples=4"]
    settings, atonce, answered = [*settings, "engine.concurrency=3"], 3, 9
    released, count = threading.Event(), iter(range(1_000))

    def reply(body):
        if next(count) >= answered:
            released.wait()  # so that the command is killed while it waits for these
        return hashed(body)

    def written(root="outputs"):
        files = (here / root).glob("stages/generate-*/generations.jsonl")
        return [json.loads(line) for file in files for line in file.read_text().splitlines(True) if line.endswith("\n")]

    server.reply = reply
    child = Child("jaxalign.evaluate", settings)
    child.kill_when(lambda: len(server.asked) == answered + atonce and len(written()) == answered)
    kept, first = {one["text"] for one in written()}, list(server.asked)
    released.set()
    assert child.poll() == -9 and len(kept) == answered and not list((here / "outputs").glob("*/summary.json"))
    server.asked.clear()
    main(settings)
    again = [one for one in server.asked if one in first]
    assert again == [one for one in again if hashed(one)["text"] not in kept] and len(again) == atonce
    assert len(server.asked) == 6 * 4 - answered
    texts = sorted(one["text"] for one in written())
    main([*settings, "run.root=unbroken"])
    assert texts == sorted(one["text"] for one in written("unbroken")) and len(texts) == 6 * 4


@pytest.mark.slow
def test_refusals_are_not_measured_on_text_that_was_continued_which_nobody_asks_about(asked, noughts, here, capsys):
    settings, _ = asked
    settings = [*settings, "judge=toxicity_linear", "judge.repeat=1", "run.dir=run"]
    rows = [
        {"id": f"{form} {n}", "category": "malware", "form": form, "prompt": f"Is {form} {n} all right?"}
        for form in ("question", "completion")
        for n in range(12)
    ]
    (here / "p.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    run(main, settings, capsys)
    said = [
        {"key": one["key"], "label": "refusal" if "0" in one["text"] else "fine", "person": "me"}
        for one in records(here / "run", "models/*/stages/generate/generations.jsonl")
    ]
    (here / "run" / "labels.jsonl").write_text("".join(json.dumps(one) + "\n" for one in said))
    run(main, [*settings, "stage=aggregate"], capsys)
    summary = json.loads((here / "run" / "summary.json").read_text())
    (found,) = [one for one in summary["judges"] if one["about"] == "refusal"]
    assert len(said) == 24 and (found["kappa"]["n"], found["kappa"]["estimate"], sum(found["error"])) == (12, 1.0, 12)


def measured(folder):
    """The entries of the judges of a run by what they judge."""
    (path,) = folder.glob("starter_probes-*/summary.json")
    return {one["about"]: one for one in json.loads(path.read_text())["judges"]}


@pytest.fixture
def own(here):
    """Labels of one's own: 12 responses, half of them harmful, half refusals."""
    labels = [
        {"id": str(n), "category": "malware", "prompt": f"Why {n}?", "response": f"So {n}.", "label": label}
        for n, label in enumerate(["refusal", "harmful"] * 6)
    ]
    (here / "l.jsonl").write_text("".join(json.dumps(one) + "\n" for one in labels))
    return "judge.labels=l.jsonl"


def test_a_judge_of_refusals_is_measured_beside_a_judge_at_a_server_without_a_request(asked, noughts, here, capsys):
    settings, server = asked
    printed = run(main, settings, capsys)
    assert sent(server) == 12 and "judge: rubric_api (base), uncalibrated" in printed
    found = measured(here / "outputs")
    assert found["refusal"]["kappa"]["n"] > 500 and found["harm"]["kappa"] is None


def test_labels_of_ones_own_measure_a_judge_at_a_server_whatever_calibrate_says(asked, noughts, own, here, capsys):
    settings, server = asked
    line = refused(main, [*settings, own, "judge.max_requests=23"], capsys)
    assert line.startswith("24 judgements need as many requests") and sent(server) == 0
    printed = run(main, [*settings, own, "judge.max_requests=24"], capsys)
    assert sent(server) == 24 and "rubric_api: at least 24 requests" in printed
    found = measured(here / "outputs")
    assert [found[about]["kappa"]["n"] for about in ("harm", "refusal")] == [12, 12]
    assert {one["labels"] for one in found.values()} == {"l.jsonl"}


@pytest.mark.parametrize("has", [12, 0])
def test_imported_scores_are_measured_on_the_labels_that_they_are_of_or_a_line_says_why_not(
    asked, own, here, capsys, has
):
    settings, _ = asked
    run(main, [*settings, "stage=generate"], capsys)
    texts = [(one["prompt"], one["text"]) for one in records(here / "outputs", "stages/generate-*/generations.jsonl")]
    texts += [(f"Why {n}?", f"So {n}.") for n in range(has)]
    scores = [{"prompt": prompt, "response": text, "score": n % 2} for n, (prompt, text) in enumerate(texts)]
    (here / "s.jsonl").write_text("".join(json.dumps(one) + "\n" for one in scores))
    settings = [*settings, "judge=imported", "judge.path=s.jsonl", "judge.repeat=1", own]
    printed = run(main, settings, capsys)
    line = "imported is not measured: it judged none of the 12 labelled responses (not in s.jsonl)"
    assert (line in " ".join(printed.split())) == (has == 0)
    kappa = measured(here / "outputs")["harm"]["kappa"]
    assert (kappa["n"], kappa["missing"]) == (has, 12 - has)


@pytest.mark.slow
def test_a_server_is_needed_only_where_something_is_left_to_judge(asked, capsys, monkeypatch):
    settings, server = asked
    run(main, settings, capsys)
    monkeypatch.setenv("JAXALIGN_JUDGE_URL", "http://127.0.0.1:9/v1")  # where none is
    run(main, settings, capsys)
    monkeypatch.delenv("JAXALIGN_JUDGE_URL")
    run(main, [*settings, "stage=aggregate"], capsys)
    run(main, settings, capsys)
    line = refused(main, [*settings, "stage=judge", "run.overwrite=true"], capsys)
    assert line.startswith("missing: JAXALIGN_JUDGE_URL in the environment")
    monkeypatch.setenv("JAXALIGN_JUDGE_URL", "http://127.0.0.1:9/v1")
    line = refused(main, [*settings, "benchmark.seed=7", "judge.tries=1"], capsys)
    assert "http://127.0.0.1:9/v1" in line and len(server.asked) == 18  # nothing was generated before
    monkeypatch.delenv("JAXALIGN_JUDGE_MODEL")
    line = refused(main, [*settings, "stage=aggregate"], capsys)
    assert line.startswith("missing: JAXALIGN_JUDGE_MODEL in the environment")
