import subprocess
import sys

import pytest


@pytest.mark.slow
def test_the_old_name_of_the_command_says_the_new_one_and_does_the_same():
    old, new = (
        subprocess.run([sys.executable, "-m", name, "--help"], capture_output=True, text=True, check=True)
        for name in ("jaxalign.values.survey", "jaxalign.survey")
    )
    assert old.stderr == "python -m jaxalign.values.survey is now called python -m jaxalign.survey\n"
    assert new.stderr == ""
    assert old.stdout == new.stdout != ""
