"""The old name of `python -m jaxalign.survey`: it prints the new name and runs that command."""

import runpy
import sys

if __name__ == "__main__":
    print("python -m jaxalign.values.survey is now called python -m jaxalign.survey", file=sys.stderr)
    runpy.run_module("jaxalign.survey", run_name="__main__", alter_sys=True)
