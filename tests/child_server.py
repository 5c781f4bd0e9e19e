"""What the server of child processes does before it is copied: it imports the jobs, and settles how a copy works."""

import gc
import os

import hydra_once

import jaxalign.jobs.crest.pipeline
import jaxalign.jobs.evaluate.pipeline
import jaxalign.jobs.generate
import jaxalign.jobs.train.pipeline  # noqa: F401 (the jobs are for the copies)

os.fsync = lambda fd: None  # as in conftest.py, and the search for reference cycles, too
hydra_once.install()
gc.set_threshold(50_000, 20, 20)
gc.collect()
gc.freeze()
