"""What `model.storage` changes: the default model in fewer bits against itself in float32, on held-out text.

    python benchmarks/storage.py [--model NAME] [--texts N]

Each token of the starter arguments that no training with the default split sees is predicted by each of them. The
table has KL(float32 || it) and the difference of the log-probabilities of the token that follows, in nats a token.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from machine import processor

from jaxalign.config.presets import preset
from jaxalign.data.encoding import Encoder
from jaxalign.inference.base_model import BaseModel
from jaxalign.jobs.train.data import perplexity_texts
from jaxalign.models.transformer import head_kernel
from jaxalign.parallel.compilation import Programs
from jaxalign.pretrained.sources import read_model, source_of

KINDS = (("float32", None), ("bfloat16", None), ("bfloat16", "int8"), ("bfloat16", "int4"), ("float32", "int4"))
"""(precision, storage); the first one is what the others are compared with."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2_135m", help="an option of conf/model (default: smollm2_135m)")
    parser.add_argument("--texts", type=int, default=64, help="the largest number of texts (default: 64)")
    args = parser.parse_args()
    print(processor())
    print("| precision, storage | base, MB | mean KL | largest KL | mean abs. difference | largest | perplexity |")
    print("|---|---|---|---|---|---|---|")
    reference = None
    for precision, storage in KINDS:
        held, predicted, targets = log_probs(args.model, precision, storage, args.texts)
        reference = predicted if reference is None else reference
        divergence = (np.exp(reference) * (reference - predicted)).sum(-1)
        mine = predicted[np.arange(len(targets)), targets]
        apart = np.abs(mine - reference[np.arange(len(targets)), targets])
        numbers = [divergence.mean(), divergence.max(), apart.mean(), apart.max()]
        row = [f"{precision}, {storage or precision}", f"{held / 1e6:,.0f}", *(f"{x:.5f}" for x in numbers)]
        print(f"| {' | '.join([*row, f'{np.exp(-mine.mean()):.2f}'])} |", flush=True)
    print(f"{len(reference):,} predictions")


def log_probs(name: str, precision: str, storage: str | None, count: int) -> tuple[int, np.ndarray, np.ndarray]:
    """Return the bytes of the base, the log-probabilities [N, V] of every token, and the tokens [N] that follow."""
    dtype = jnp.dtype(precision)
    model = read_model(source_of(preset(name)), dtype, offline=False, name=name, storage=storage)
    base = BaseModel(model, dtype, Programs())
    encoder = Encoder(model.tokenizer)
    texts = [encoder.root(text) for text in perplexity_texts(0.1)[:count]]
    lengths = np.array([len(text) for text in texts])
    tokens = np.zeros((len(texts), max(lengths)), np.int32)
    for row, text in zip(tokens, texts, strict=True):
        row[: len(text)] = text
    place = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)
    ends = np.where(place < lengths[:, None], lengths[:, None], place + 1).astype(np.int32)
    network, params = base.network(), base.weights(False)

    @jax.jit
    def read(params, tokens, place, ends):
        states = network.apply({"params": params}, tokens, place, ends)
        head = head_kernel(params, model.architecture).astype(jnp.float32)
        return jax.lax.map(lambda row: jax.nn.log_softmax(row.astype(jnp.float32) @ head.T), states)

    known = place[:, 1:] < lengths[:, None]
    found = np.concatenate(
        [np.asarray(read(params, *(x[n : n + 4] for x in (tokens, place, ends)))) for n in range(0, len(texts), 4)]
    )
    return sum(leaf.nbytes for leaf in jax.tree.leaves(params)), found[:, :-1][known], tokens[:, 1:][known]


if __name__ == "__main__":
    main()
