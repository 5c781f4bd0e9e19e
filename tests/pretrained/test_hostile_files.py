"""Whatever stands in a file of a model: it is read, or refused in one line. Never a traceback, never a hang."""

import json
import struct

import numpy as np
import pytest
from gguf_file import write_gguf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lora_folder import ARCHITECTURE, random_adapter, write
from model_folder import CONFIGS, write_model

from jaxalign.errors import UserError
from jaxalign.models.architecture import Architecture, from_config
from jaxalign.pretrained.gguf import GgufFile
from jaxalign.pretrained.peft import read_adapter
from jaxalign.pretrained.safetensors import INDEX, SafetensorsFolder

thorough = settings(
    max_examples=150,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

LEAVES = (
    st.none()
    | st.booleans()
    | st.sampled_from([0, 1, -1, 2**31, 10**12, 2**63, 10**400, 1e308, 0.5])
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
DAMAGE = st.lists(st.tuples(st.integers(0, 10**4), st.integers(0, 255)), min_size=1, max_size=4)


def read_or_refused(read):
    """Return what `read` returns, or None if it refused in one line."""
    try:
        return read()
    except UserError as error:
        line = str(error)
        assert line and "\n" not in line and len(line) < 2000
        return None


def damaged(data, changes, kept):
    """Return bytes of which some are others, and of which only so many are kept."""
    found = bytearray(data)
    for place, byte in changes:
        found[place % len(found)] = byte
    return bytes(found[:kept])


KEYS = [
    *sorted({key for config in CONFIGS.values() for key in config}),
    "rms_norm_eps",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "layer_types",
    "use_sliding_window",
    "max_window_layers",
    "attention_bias",
    "hidden_act",
    "final_logit_softcapping",
    "quantization_config",
]
ROPE = st.dictionaries(
    st.sampled_from(["rope_type", "type", "factor", "rope_theta", "low_freq_factor", "high_freq_factor"]),
    st.sampled_from(["linear", "llama3", "default", 8.0, 1]) | LEAVES,
)


@thorough
@given(st.sampled_from(sorted(CONFIGS)), st.dictionaries(st.sampled_from(KEYS), JSON | ROPE, min_size=1, max_size=3))
def test_any_configuration(family, changes):
    found = read_or_refused(lambda: from_config(CONFIGS[family] | changes))
    assert found is None or (isinstance(found, Architecture) and hash(found) is not None)


@thorough
@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_as_a_configuration(tmp_path, data):
    from jaxalign.pretrained.sources import ModelSource, open_checkpoint

    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    (tmp_path / "config.json").write_bytes(data)
    source = ModelSource("hub", str(tmp_path))
    read_or_refused(lambda: from_config(open_checkpoint(source, tmp_path)[1]))


ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "BF16", "F64", "I64", "F8_E4M3"]) | JSON,
        "shape": st.lists(st.sampled_from([0, 1, 2, 2**40]) | LEAVES, max_size=3) | JSON,
        "data_offsets": st.lists(st.integers(-9, 40), min_size=2, max_size=2) | JSON,
    },
)


@thorough
@given(st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), ENTRY | JSON) | JSON, st.integers(-3, 40))
def test_any_header_of_a_safetensors_file(tmp_path, header, more):
    text = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", max(len(text) + min(more, 0), 0)) + text + bytes(32))
    source = read_or_refused(lambda: SafetensorsFolder(tmp_path))
    for name in source.names() if source else []:
        found = read_or_refused(lambda name=name: source.read(name))
        assert found is None or found.shape == source.shape(name)


@thorough
@given(JSON | st.dictionaries(st.just("weight_map"), st.dictionaries(st.text(max_size=3), st.text(max_size=3) | JSON)))
def test_any_index(tmp_path, index):
    (tmp_path / INDEX).write_text(json.dumps(index))
    read_or_refused(lambda: SafetensorsFolder(tmp_path))


@pytest.fixture(scope="module")
def gguf_bytes(tmp_path_factory):
    """A whole GGUF file."""
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    write_gguf(path)
    return path.read_bytes()


@thorough
@given(DAMAGE, st.integers(0, 10**4) | st.just(None))
def test_any_damage_to_a_gguf_file(tmp_path, gguf_bytes, changes, kept):
    (tmp_path / "m.gguf").write_bytes(damaged(gguf_bytes, changes, kept))
    file = read_or_refused(lambda: GgufFile(tmp_path / "m.gguf"))
    if file is not None:
        read_or_refused(lambda: from_config(file.config()))
        read_or_refused(file.tokenizer)


@pytest.mark.slow
@thorough
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "peft_type",
                "r",
                "lora_alpha",
                "bias",
                "use_rslora",
                "target_modules",
                "init_lora_weights",
                "rank_pattern",
            ]
        ),
        JSON,
    ),
    st.none() | st.dictionaries(st.sampled_from(["extra", "base_identity", "base_name", "prompt_format"]), JSON) | JSON,
)
def test_any_adapter_config(tmp_path, changes, ours):
    if not (tmp_path / "adapter_config.json").is_file():
        write(tmp_path, random_adapter())
        (tmp_path / "whole.json").write_text((tmp_path / "adapter_config.json").read_text())
    config = json.loads((tmp_path / "whole.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | changes))
    (tmp_path / "jaxalign.json").write_text(json.dumps(ours))
    found = read_or_refused(lambda: read_adapter(tmp_path, ARCHITECTURE))
    assert found is None or np.isfinite(found.scale)


@pytest.mark.parametrize(
    "changes", [{"num_hidden_layers": 10**9}, {"num_hidden_layers": 10_000}, {"vocab_size": 2**24}]
)
def test_sizes_that_the_file_does_not_have_are_refused_before_anything_is_allocated(tmp_path, changes):
    from jaxalign.pretrained.sources import ModelSource, read_model

    write_model(tmp_path, CONFIGS["llama"] | changes, {"model.norm.weight": np.ones(32, np.float32)})
    with pytest.raises(UserError, match=r"num_hidden_layers=1000000000|does not fit its llama configuration"):
        read_model(ModelSource("hub", str(tmp_path)), np.float32, offline=True, name="large")
