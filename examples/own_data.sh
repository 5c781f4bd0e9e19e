#!/usr/bin/env bash
# Train on a data set of your own. The columns of recipes.jsonl are called `dish` and `how`; dataset.columns says which
# of them is the prompt, and which is the response.
#
#     examples/own_data.sh                                       # SmolLM2-135M, a few minutes on two cores
#     examples/own_data.sh model=tiny training.max_steps=2       # a random model, to try it quickly
#
# The run is in outputs/jsonl-..., a folder for each model and each set of settings.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

own=(dataset=jsonl "dataset.path=$here/recipes.jsonl" dataset.columns.prompt=dish dataset.columns.response=how)
own+=(released.unmatched_budget=true)  # train for one epoch, and not on as many tokens as a value

python -m jaxalign.train "${own[@]}" inspect=2 "$@"              # look at two examples first
python -m jaxalign.train "${own[@]}" "$@"
