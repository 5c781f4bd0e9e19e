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
        ("Qwen3ForCausalLM", {"sliding_window": 9, "layer_types": ["sliding_attention", "full_attention"]}, (9, 0)),
        ("LlamaForCausalLM", {"sliding_window": 16}, (0, 0)),
    ],
)
def test_windows_are_those_of_the_family(name, changed, windows):
    assert read(architectures=[name], **changed).windows == windows


@pytest.mark.parametrize(
    ("changed", "line"),
    [
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
