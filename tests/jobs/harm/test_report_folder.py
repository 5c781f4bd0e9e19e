"""The folder of a report: checked before the work, and taken up again after a kill at any moment."""

import pytest
from command_line import refused, run
from synthetic_harm import Lab

from jaxalign.jobs import report as job
from jaxalign.report import main


@pytest.fixture
def one_model(tmp_path):
    """A folder with one finished run, of the base."""
    made = Lab(tmp_path / "runs", prompts=2)
    made.run([made.base()], "one")
    return made


@pytest.mark.parametrize("files", [0, 1, 2, 5, 10])
def test_a_report_that_was_killed_is_made_by_the_same_command(one_model, capsys, monkeypatch, files):
    left, write = files, job.write_atomic

    def killed(*arguments):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        write(*arguments)

    monkeypatch.setattr(job, "write_atomic", killed)
    with pytest.raises(SystemExit):
        main([f"runs={one_model.root}"])
    if files:
        assert "This report is not finished" in (one_model.root / "report" / "index.html").read_text()
    monkeypatch.setattr(job, "write_atomic", write)
    assert "1 run read" in run(main, [f"runs={one_model.root}"], capsys)
    assert "not finished" not in (one_model.root / "report" / "index.html").read_text()


def test_a_report_that_is_there_stays_until_the_new_page_is_written(one_model, capsys, monkeypatch):
    run(main, [f"runs={one_model.root}"], capsys)
    page, before = one_model.root / "report" / "index.html", (one_model.root / "report" / "index.html").read_text()

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "write_table", stopped)
    with pytest.raises(SystemExit):
        main([f"runs={one_model.root}"])
    assert page.read_text() == before


@pytest.mark.parametrize("place", ["file", "file/inside", "nowhere"])
def test_a_folder_that_cannot_be_written_is_refused_before_the_work(one_model, capsys, monkeypatch, tmp_path, place):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "nowhere").symlink_to(tmp_path / "none" / "at all")
    monkeypatch.setattr(job, "report_part", lambda *_: pytest.fail("the tables were made first"))
    line = refused(main, [f"runs={one_model.root}", f"out={tmp_path / place}"], capsys)
    assert str(tmp_path / place) in line and line.endswith("give another out") and "run.dir" not in line


def test_an_empty_folder_and_a_link_to_one_are_filled(one_model, capsys, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    run(main, [f"runs={one_model.root}", f"out={tmp_path}/link"], capsys)
    assert (tmp_path / "real" / "index.html").is_file() and (tmp_path / "link").is_symlink()
