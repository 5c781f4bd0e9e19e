"""A run of the whole loop, made once for all tests that look at it."""

import pytest
from jobs.crest.runs_of_crest import SMALL


@pytest.fixture(scope="session")
def run_and_weights(tmp_path_factory):
    """A run of all stages at once, and the weights of the base that it went through them with."""
    from jaxalign.crest import main  # not before pytest checks the shapes in what it imports
    from jaxalign.inference.base_model import BaseModel

    folder, made = tmp_path_factory.mktemp("whole") / "run", []

    def make(*arguments):
        made.append(BaseModel(*arguments))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxalign.jobs.setup.BaseModel", make)
        main([f"run.dir={folder}", *SMALL])
    (base,) = made
    return folder, base.weights(False)


@pytest.fixture(scope="session")
def whole(run_and_weights):
    """A run of all stages at once; not to be changed."""
    return run_and_weights[0]
