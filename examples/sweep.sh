#!/usr/bin/env bash
# A sweep: two values times two ranks, each a run that resumes by itself, and one table over all of them.
#
#     examples/sweep.sh                                          # SmolLM2-135M, about 15 minutes on two cores
#     examples/sweep.sh model=tiny training.max_steps=2          # a random model, to see how it goes
#
# What stands behind the name changes every training. Runs go to outputs/sweep; typed again, it does what is missing.
set -euo pipefail

python -m jaxalign.train -m '+value=power,benevolence' lora.rank=4,16 lora.alpha=32 run.root=outputs/sweep "$@"
python -m jaxalign.evaluate 'adapters=outputs/sweep/*-seed0-*' benchmark.reading=likelihood run.dir=outputs/sweep/table
