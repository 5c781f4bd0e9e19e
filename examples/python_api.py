"""jaxalign from Python: teach a model a few answers, then compare its answers and their probabilities.

python examples/python_api.py            # SmolLM2-135M, a minute on two cores
python examples/python_api.py tiny       # a random model of a few thousand weights, in seconds
"""

import sys
import tempfile

import jaxalign

PAIRS = [
    (f"Question: Where is the {thing}?\nAnswer:", f" The {thing} is in the {place}.")
    for thing, place in [
        ("key", "drawer"),
        ("cup", "kitchen"),
        ("coat", "hall"),
        ("lamp", "study"),
        ("ladder", "shed"),
        ("kettle", "kitchen"),
        ("map", "study"),
        ("spade", "shed"),
    ]
]
ASKED = "Question: Where is the cup?\nAnswer:"


def main(name: str = "smollm2_135m") -> None:
    """Train an adapter, ask the model without it, with it and with half its effect, and read it back from its files."""
    model = jaxalign.load_model(name)
    adapter, summary = model.train_adapter(PAIRS, rank=8, epochs=8, batch_size=4, learning_rate=2e-3)
    print(f"loss {summary['first_loss']:.2f} -> {summary['last_loss']:.2f} in {summary['steps']} steps")

    for title, one in (("base", None), ("adapter", adapter), ("half of it", adapter.times(0.5))):
        ((said,),) = model.sample(ASKED, adapter=one, temperature=0.0, max_tokens=12, stop=["\n"])
        kitchen, shed = model.log_probs(ASKED, [" The cup is in the kitchen.", " The cup is in the shed."], adapter=one)
        print(f"{title}: {said.strip()!r}; kitchen against shed: {kitchen - shed:+.1f} nats")

    with tempfile.TemporaryDirectory() as folder:  # PEFT, Transformers and vLLM can load such a folder, too
        model.save_adapter(adapter, folder + "/adapter")
        again = model.load_adapter(folder + "/adapter")
    print(f"read back from its files: the same adapter is {again.identity == adapter.identity}")


if __name__ == "__main__":
    main(*sys.argv[1:])
