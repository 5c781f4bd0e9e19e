#!/usr/bin/env bash
# A data set of one's own: the columns of recipes.jsonl are called `dish` and `how`, and dataset.columns says so.
#
#     examples/own_data.sh                                       # SmolLM2-135M, about two minutes on two cores
#     examples/own_data.sh model=tiny training.max_steps=2       # a random model, to see how it goes
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

own=(dataset=jsonl "dataset.path=$here/recipes.jsonl" dataset.columns.prompt=dish dataset.columns.response=how)
own+=(released.unmatched_budget=true run.dir=outputs/recipes)  # one epoch of the file, and not as many tokens as a value

python -m jaxalign.train "${own[@]}" inspect=2 "$@"              # first look at what the model is to see
python -m jaxalign.train "${own[@]}" "$@"
