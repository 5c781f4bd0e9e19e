#!/usr/bin/env bash
# A sweep over two values and two ranks. Each combination is a run that can be resumed; one table compares all of them.
#
#     examples/sweep.sh                                          # SmolLM2-135M, about 15 minutes on two cores
#     examples/sweep.sh model=tiny training.max_steps=2          # a random model, to try it quickly
#
# The arguments of the script are settings of every training. The runs are in outputs/sweep. If you type the same command
# again, it does only what is missing.
set -euo pipefail

python -m jaxalign.train -m '+value=power,benevolence' lora.rank=4,16 lora.alpha=32 run.root=outputs/sweep "$@"
python -m jaxalign.evaluate 'adapters=outputs/sweep/*-seed0-*' benchmark.reading=likelihood run.dir=outputs/sweep/table
