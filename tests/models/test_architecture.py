import pytest
from tiny_model import CONFIG

from jaxalign.errors import UserError
from jaxalign.models.architecture import PROJECTIONS, from_config, projection_shape


def read(**changed):
    return from_config({key: value for key, value in (CONFIG | changed).items() if value is not ...})


def test_sizes_that_a_configuration_leaves_out_follow_from_the_others():
    architecture = read(num_key_value_heads=..., tie_word_embeddings=...)
    assert (architecture.head_dim, architecture.kv_heads, architecture.tied) == (8, 4, False)
    assert read(head_dim=16).head_dim == 16
    assert [projection_shape(read(head_dim=16), name) for name in PROJECTIONS] == [
        (32, 64), (32, 32), (32, 32), (64, 32), (32, 48), (32, 48), (48, 32),
    ]  # fmt: skip


def test_rope_is_read_from_files_of_both_ages():
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    old = read(rope_theta=5e5, rope_scaling=scaling | {"rope_type": "llama3"})
    new = read(rope_parameters=scaling | {"rope_type": "llama3", "rope_theta": 5e5})
    assert old == new
    assert old.rope_scaling.original_context == 8192
    assert read(rope_theta=1e4, rope_scaling=None) == read()


@pytest.mark.parametrize(
    ("name", "changed", "windows"),
    [
        ("MistralForCausalLM", {"sliding_window": 16}, (16, 16)),
        ("MistralForCausalLM", {"sliding_window": None}, (0, 0)),
        ("Gemma2ForCausalLM", {"sliding_window": 16}, (16, 0)),
        ("Qwen2ForCausalLM", {"sliding_window": 16, "use_sliding_window": False}, (0, 0)),
        ("Qwen2ForCausalLM", {"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 1}, (0, 16)),
        (
            "Qwen3ForCausalLM",
            {"sliding_window": 9, "use_sliding_window": True, "layer_types": ["sliding_attention", "full_attention"]},
            (9, 0),
        ),
        ("MistralForCausalLM", {}, (4096, 4096)),
        ("Gemma2ForCausalLM", {}, (4096, 0)),
        ("Qwen3ForCausalLM", {"sliding_window": 9, "use_sliding_window": True}, (0, 0)),  # windows from layer 28 on
        ("LlamaForCausalLM", {"sliding_window": 16}, (0, 0)),
    ],
)
def test_windows_are_those_of_the_family(name, changed, windows):
    assert read(architectures=[name], **changed).windows == windows


SIZES = {
    "vocab_size": 64,
    "hidden_size": 512,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 32,
}


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "granite"])
def test_what_a_configuration_leaves_out_is_what_transformers_takes(kind):
    from transformers import AutoConfig

    ours, theirs = from_config({"model_type": kind} | SIZES), AutoConfig.for_model(kind, **SIZES)
    assert (ours.kv_heads, ours.context, ours.norm_eps) == (
        theirs.num_key_value_heads,
        theirs.max_position_embeddings,
        theirs.rms_norm_eps,
    )
    assert ours.head_dim == (getattr(theirs, "head_dim", None) or 512 // 32)
    assert (ours.tied, ours.rope_theta) == (theirs.tie_word_embeddings, theirs.rope_parameters["rope_theta"])
    assert ours.activation == (theirs.hidden_activation if kind == "gemma2" else theirs.hidden_act)
    assert ours.logit_softcap == getattr(theirs, "final_logit_softcapping", None)
    assert ours.attention_softcap == getattr(theirs, "attn_logit_softcapping", None)
    attention_scale = getattr(theirs, "query_pre_attn_scalar", ours.head_dim) ** -0.5
    assert ours.attention_scale == getattr(theirs, "attention_multiplier", attention_scale)
    embed_scale = ours.width**0.5 if kind.startswith("gemma") else 1.0
    assert ours.embed_scale == getattr(theirs, "embedding_multiplier", embed_scale)
    assert ours.residual_scale == getattr(theirs, "residual_multiplier", 1.0)
    assert ours.logit_scale == 1 / getattr(theirs, "logits_scaling", 1.0)
    kinds = getattr(theirs, "layer_types", None) or ["sliding_attention" if kind == "mistral" else "full"] * 2
    assert ours.windows == tuple(theirs.sliding_window if one == "sliding_attention" else 0 for one in kinds)


def test_null_is_not_always_a_missing_key():
    gemma = {"model_type": "gemma2"} | SIZES
    assert from_config(gemma | {"num_key_value_heads": None}).kv_heads == 32
    assert from_config(gemma | {"final_logit_softcapping": None}).logit_softcap is None
    assert from_config(gemma | {"sliding_window": None}).windows == (0, 0)


def test_a_stretched_rope_without_its_first_context_takes_the_whole_one():
    rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    assert read(rope_scaling=rope, max_position_embeddings=77).rope_scaling.original_context == 77


def gemma(**changed):
    return {"architectures": ["Gemma2ForCausalLM"]} | changed


def qwen3(**changed):
    return {"architectures": ["Qwen3ForCausalLM"]} | changed


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers=1000000000 is not allowed: it must be a whole number from 1"),
        ({"hidden_size": 32.0}, "hidden_size=32.0 is not allowed: it must be a whole number"),
        ({"vocab_size": "97"}, "vocab_size='97' is not allowed: it must be a whole number"),
        ({"vocab_size": -1}, "vocab_size=-1 is not allowed"),
        ({"num_attention_heads": True}, "num_attention_heads=true is not allowed"),
        ({"num_key_value_heads": 3}, "num_key_value_heads=3 is not allowed: it must be a divisor of"),
        ({"head_dim": 7}, "head_dim=7 is not allowed: it must be even"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings='false' is not allowed: it must be true or false"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps=nan is not allowed: it must be a finite number above 0"),
        ({"rope_theta": float("inf")}, "rope_theta=inf is not allowed"),
        ({"rope_theta": 10**400}, "is not allowed: it must be a finite number above 0"),
        ({"rope_theta": 1e-300}, "rope_theta=1e-300 is not allowed: it must be a finite number above 0.001"),
        ({"rope_scaling": {"rope_type": "linear"}}, "config.json: rope_scaling has no 'factor'"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0}}, "factor=0 is not allowed"),
        ({"rope_scaling": ["linear"]}, "rope_scaling=a list is not allowed: it must be keys and values"),
        ({"rope_parameters": {"full_attention": {}}}, "settings for 'full_attention' alone"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "turns a part of each head alone"),
        ({"architectures": {"LlamaForCausalLM": 1}}, "architectures=keys and values is not allowed"),
        ({"architectures": [["LlamaForCausalLM"]]}, "architectures=a list is not allowed: it must be a list of texts"),
        (qwen3(use_sliding_window=True, layer_types=["sliding_attention"]), "for each of the 2 layers"),
        (gemma(use_bidirectional_attention=True), "attention to later tokens"),
        (
            {"architectures": ["GPT2LMHeadModel"]},
            "unsupported architecture: GPT2LMHeadModel; supported are LlamaForCausalLM",
        ),
        ({"architectures": None, "model_type": "mamba"}, "unsupported architecture: mamba"),
        ({"hidden_size": ...}, "config.json has no 'hidden_size', which a llama model needs"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope scaling 'yarn'"),
        ({"hidden_act": "relu"}, "unsupported activation 'relu'"),
        ({"quantization_config": {"bits": 4}}, "this checkpoint is quantised"),
        ({"mlp_bias": True}, "biases in the MLP"),
    ],
)
def test_what_is_not_supported_is_refused_in_one_line(changed, line):
    with pytest.raises(UserError) as error:
        read(**changed)
    assert line in str(error.value)
