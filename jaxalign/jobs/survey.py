"""The survey job: it makes realistic targets from the user's own survey file."""

from collections import Counter
from pathlib import Path

from jaxalign.config.survey import SurveyConfig
from jaxalign.data.account import account, count
from jaxalign.runs.progress import all_here
from jaxalign.values.social_survey import check_targets_folder, nearest, read_respondents, write_targets
from jaxalign.values.targets import TABLE


def survey(config: SurveyConfig) -> None:
    """Write the targets as configured, and print what was read, what was dropped, and the next command.

    Raises:
        UserError: the survey file cannot be used, or the folder cannot be written.
    """
    if config.prefetch:
        print(all_here("nothing but the program and the survey's file"))
        return
    check_targets_folder(Path(config.out))
    respondents = read_respondents(config.path, config.separator, config.missing)
    targets = nearest(respondents, config.coding, config.neighbours)
    write_targets(config.out, targets, respondents, Path(config.path), config.coding)
    used = count(len(respondents.lines), "respondent")
    print(account("survey", {Path(config.path): respondents.rows}, used))
    dropped = sum(respondents.missing.values())
    print(f"{respondents.rows} respondents: {dropped} without an answer to every item, dropped")
    for item, number in Counter(respondents.missing).most_common(3):
        print(f"  {number} of them: their first item without an answer is {item}")
    print(f"{respondents.duplicates} with the same ten scores as an earlier one, dropped")
    print(f"{len(respondents.lines)} kept; {len(targets)} targets in {Path(config.out) / TABLE}")
    example = f"+value=survey/close value.anchor=power value.rank=1 value.table={config.out}"
    raw = " released.raw_coding=true" if config.coding == "raw" else ""
    print(f"next:    python -m jaxalign.train {example}{raw}")
