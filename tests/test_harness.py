"""What lm-evaluation-harness asks of a model; the harness itself need not be installed."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from runs_of_tiny import read_tiny, train

from jaxalign import harness
from jaxalign.api import Adapter
from jaxalign.errors import UserError
from jaxalign.evaluate import main as evaluate
from jaxalign.harness import Harness, task_sampling_params
from jaxalign.models.lora import init_adapter
from jaxalign.safety.task_results import TaskResults, read_task_results


@pytest.fixture(scope="module")
def model():
    return Harness(model="tiny", precision="float32", rows=8, batch_size=1)


def ask(*arguments):
    return SimpleNamespace(args=arguments)


@pytest.mark.slow
def test_log_likelihoods_are_those_of_the_model_and_say_what_greedy_decoding_would_write(model):
    pairs = [("Once upon", " a time"), ("Once upon", " it"), ("Once upon ", "a time"), ("", "Hello")]
    found = model.loglikelihood([ask(*pair) for pair in pairs])
    alone = model.language.log_probs("Once upon", [" a time", " it"])
    np.testing.assert_allclose([score for score, _ in found[:3]], [alone[0], alone[1], alone[0]], atol=1e-4)
    (text,) = model.generate_until([ask("Once upon", {"max_gen_toks": 3, "until": []})])
    (_, greedy), (_, other) = model.loglikelihood([ask("Once upon", text), ask("Once upon", text + "zq")])
    assert greedy and not other and not any(greedy for _, greedy in found)


def test_a_rolling_text_predicts_each_token_once(model, monkeypatch):
    text = "It was a long day, and nobody said a word about it."
    (whole,) = model.loglikelihood_rolling([ask(text)])
    tokens = model._encode(text)
    windows = model._windows(tokens)
    assert len(windows) == 1 and windows[0][0].tolist() == [model.prefix]
    assert whole == pytest.approx(model.loglikelihood([ask("", text)])[0][0], abs=1e-3)
    # A short context: later windows are full, and their predictions do not overlap.
    monkeypatch.setattr(model.language, "architecture", SimpleNamespace(context=17))
    windows = model._windows(tokens)
    np.testing.assert_array_equal(np.concatenate([scored for _, scored in windows]), tokens)
    for before, scored in windows[1:]:
        assert len(before) + len(scored) == 18  # nothing is predicted from the last one


def test_generation_stops_where_a_task_says(model):
    long, short = model.generate_until(
        [ask("Once", {"max_gen_toks": 12, "until": ["\n\n\n"]}), ask("Once", {"max_gen_toks": 4})]
    )
    assert long.startswith(short)
    stop = long[3:5]
    (cut,) = model.generate_until([ask("Once", {"max_gen_toks": 12, "until": [stop]})])
    assert stop not in cut and long.startswith(cut)
    assert task_sampling_params({"temperature": 0.7, "do_sample": False}).temperature == 0.0
    assert task_sampling_params({"temperature": 0.7}).temperature == 0.7  # as the harness reads it
    assert task_sampling_params({"temperature": 0.7, "do_sample": True, "top_p": 0.9}).top_p == 0.9


def test_an_adapter_answers_with_its_scale(model):
    weights = init_adapter(jax.random.key(1), model.language.architecture, 2, ("q_proj", "v_proj"))
    weights = jax.tree.map(lambda leaf: leaf + 0.3, weights)
    other = Harness(model="tiny", precision="float32", rows=8)
    other.adapter = Adapter("mine", weights, 2, 4.0)
    request = [ask("Once upon", " a time")]
    plain, adapted = model.loglikelihood(request)[0][0], other.loglikelihood(request)[0][0]
    assert abs(plain - adapted) > 1e-3
    other.adapter = other.adapter.times(0.0)
    assert other.loglikelihood(request)[0][0] == pytest.approx(plain, abs=1e-4)


def test_a_context_that_is_too_long_loses_its_beginning(model, monkeypatch):
    monkeypatch.setattr(model.language, "architecture", SimpleNamespace(context=12))
    text = model._encode("abcdefghijklmn").tolist()
    for rest in ("1234", "123456789abc"):
        before, scored = model._pair("abcdefghijklmn", rest)
        assert before.tolist() == text[-(13 - len(rest)) :] and len(scored) == len(rest)
    with pytest.raises(UserError, match="a continuation has 13 tokens, and the context holds 12"):
        model._pair("a", "123456789abcd")


def test_an_argument_that_would_be_passed_over_is_refused():
    with pytest.raises(UserError, match=r"--model_args: adaptor is not known; did you mean 'adapter'"):
        Harness(model="tiny", adaptor="x")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rows": 2.5}, "rows=2.5 is not allowed: give a whole number of at least 1"),
        ({"rows": "x"}, "rows=x is not allowed"),
        ({"rows": 0}, "rows=0 is not allowed"),
        ({"scale": "x"}, "scale=x is not allowed: give a number"),
        ({"scale": float("nan")}, "scale=nan is not allowed"),
        ({"offline": "no"}, "offline=no is not allowed: give true or false"),
        ({"storage": "int44"}, "storage=int44 is not known; did you mean 'int4'?"),
        ({"model": None}, "model=null is not allowed: give a text"),
    ],
)
def test_an_argument_is_checked_before_a_model_is_read_as_on_the_command_line(monkeypatch, given, said):
    monkeypatch.setattr(harness, "load_model", None)
    with pytest.raises(UserError, match=re.escape(said)):
        Harness(**{"model": "tiny", **given})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"temperature": "hot"}, "temperature=hot is not allowed: give a number of at least 0"),
        ({"top_k": 1.5}, "top_k=1.5 is not allowed: give a whole number from 0"),
        ({"temperature": 1, "top_p": 0}, "top_p=0 is not allowed: give a number greater than 0, up to 1"),
        ({"max_gen_toks": 2.5}, "max_gen_toks=2.5 is not allowed: give a whole number of at least 1"),
        ({"max_gen_toks": 4, "max_tokens": "8"}, "max_tokens='8' is not allowed"),
        ({"seed": -1}, "seed=-1 is not allowed: give a whole number from 0 to 4294967295"),
        ({"do_sample": "no"}, "do_sample=no is not allowed: give true or false"),
        ({"until": 5}, "until=5 is not allowed: give a list of strings"),
    ],
)
def test_a_setting_of_a_task_is_checked_as_on_the_command_line(settings, said):
    with pytest.raises(UserError, match=re.escape(said)):
        task_sampling_params(settings)
    nothing = dict.fromkeys(settings)  # null is what is not set; settings of other programs are passed over
    assert task_sampling_params({**nothing, "num_beams": "x"}) == task_sampling_params({})


def test_help_without_the_harness_says_what_it_needs(monkeypatch, capsys):
    monkeypatch.setattr(harness, "LM", object)
    monkeypatch.setattr(sys, "argv", ["harness", "--help"])
    harness.main()
    assert "pip install 'jaxalign[harness]'" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["harness", "run"])
    with pytest.raises(SystemExit) as exit:
        harness.main()
    assert exit.value.code == 2 and "lm-evaluation-harness is not installed" in capsys.readouterr().err


def test_the_real_harness_knows_the_model_and_runs_a_task(tmp_path):
    """Skipped where lm-evaluation-harness is not installed; in a process of its own, for what it imports warns."""
    if importlib.util.find_spec("lm_eval") is None:
        pytest.skip("lm-evaluation-harness is not installed")
    (tmp_path / "rows.jsonl").write_text(
        "".join(
            json.dumps({"text": f"Say {n}:", "choices": [" one", " two"], "answer": n % 2}) + "\n" for n in range(3)
        )
    )
    (tmp_path / "task.yaml").write_text(
        f"task: little\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path}/rows.jsonl}}}}\n"
        "output_type: multiple_choice\ntest_split: test\ndoc_to_text: '{{text}}'\ndoc_to_choice: '{{choices}}'\n"
        "doc_to_target: '{{answer}}'\nmetric_list: [{metric: acc}]\n"
    )
    (tmp_path / "generating.yaml").write_text(
        f"task: writing\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path}/rows.jsonl}}}}\n"
        "output_type: generate_until\ntest_split: test\ndoc_to_text: '{{text}}'\ndoc_to_target: ' one'\n"
        "generation_kwargs: {until: ['\\n'], max_gen_toks: 4}\nmetric_list: [{metric: exact_match}]\n"
    )
    arguments = ["run", "--model", "jaxalign", "--model_args", "model=tiny,precision=float32,offline=True"]
    arguments += ["--tasks", "little,writing", "--include_path", str(tmp_path), "--output_path", str(tmp_path / "out")]
    offline = {name: "1" for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")}
    source = {"PYTHONPATH": str(Path(harness.__file__).parents[1]), "HF_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "jaxalign.harness", *arguments],
        env=os.environ | offline | source | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (written,) = (tmp_path / "out").rglob("results*.json")
    told = json.loads(written.read_text())
    results, asked = told["results"], read_task_results(written)
    assert isinstance(asked, TaskResults) and (asked.adapter, asked.precision) == ("", "float32")
    assert asked.base == read_tiny().signature
    assert {(one.task, one.metric) for one in asked.figures} >= {("little", "acc"), ("writing", "exact_match")}
    assert 0 <= results["little"]["acc,none"] <= 1 and "exact_match,none" in results["writing"]


@pytest.mark.slow
def test_the_model_is_named_by_the_hashes_that_a_run_of_a_benchmark_of_harm_has(tmp_path, model):
    folder = train(tmp_path, "power")
    settings = ["precision=float32", "benchmark.limit=2", "benchmark.max_tokens=2", "adapter.scale=0.5"]
    judge = ["judge=toxicity_linear", "judge.refusal=none", "judge.calibrate=false"]
    evaluate(["benchmark=starter_probes", f"adapter={folder}", f"run.dir={tmp_path}/run", *settings, *judge])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    halved = Harness(model="tiny", precision="float32", adapter=str(folder), scale=0.5)
    told = [{**one.get_model_info()} for one in (model, halved)]
    assert [one["jaxalign_adapter"] for one in told] == [one["adapter"] for one in summary["models"]]
    assert told[0]["jaxalign_adapter"] == "" != told[1]["jaxalign_adapter"]
    signatures = {f"{one['jaxalign_base']}-{one['jaxalign_precision']}" for one in told}
    assert signatures == {summary["model"]["signature"]}


def test_what_cannot_be_scored_is_refused(model):
    with pytest.raises(UserError, match="a continuation has no token of its own"):
        model.loglikelihood([ask("Once", "")])
    with pytest.raises(UserError, match="no room"):
        model.generate_until([ask("Once", {"max_gen_toks": 100_000})])
