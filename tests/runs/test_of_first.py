"""The directory of a run that the first process opens; several processes are tested in tests/parallel."""

import pytest

from jaxalign.errors import UserError
from jaxalign.runs.directory import open_run
from jaxalign.runs.of_first import open_run_of_first


def test_a_file_of_records_that_is_no_text_is_named(tmp_path):
    def opened():
        return open_run({"a": 1}, {"a": 1}, dir=tmp_path / "run", files=["a.jsonl"])

    (opened().path / "a.jsonl").write_bytes(bytes(range(1, 256)))
    with pytest.raises(UserError, match=r"a\.jsonl is not UTF-8 text \(byte 127\); remove it, and type the command"):
        open_run_of_first({"a": 1}, opened, ["a.jsonl"])
