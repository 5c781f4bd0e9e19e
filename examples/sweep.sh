#!/usr/bin/env bash
# A sweep over two values and two ranks. Each combination is a run that can be resumed; one table compares all of them.
#
#     examples/sweep.sh                                          # SmolLM2-135M: four times as long as one training
#     examples/sweep.sh model=tiny training.max_steps=2          # a random model, to try it quickly
#     VALUES=power,security,hedonism examples/sweep.sh           # other values
#     TABLE='benchmark.limit=10 benchmark.choice=false' examples/sweep.sh    # fewer questions for the table
#
# The arguments of the script are settings of every training, and TABLE holds those of the table, with blanks between
# them. The runs are in outputs/sweep, or with other values or trainings in a folder of their own beside it. If you type
# the same command again, it does only what is missing.
set -euo pipefail

values=${VALUES:-power,benevolence}
asked="$values${*:+ $*}"
root=outputs/sweep
[ "$asked" = power,benevolence ] || root+=-$(cksum <<< "$asked" | cut -d ' ' -f 1)

python -m jaxalign.train -m "+value=$values" lora.rank=4,16 lora.alpha=32 "run.root=$root" "$@"
python -m jaxalign.evaluate "adapters=$root/*-seed*" benchmark.reading=likelihood "run.dir=$root/table" ${TABLE:-}
