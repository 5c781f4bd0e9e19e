"""Other judges of the same responses: how far they agree with the judges of this command."""

import dataclasses
from collections.abc import Sequence
from itertools import chain
from typing import Any

from jaxalign.analysis.agreement import cohen_kappa
from jaxalign.jobs.asked import AskedModel
from jaxalign.jobs.harm.judged_file import harm_labels, shared_labels
from jaxalign.jobs.harm.session import HarmSession
from jaxalign.jobs.harm.summary_keys import JUDGING
from jaxalign.runs.config_file import stored_config
from jaxalign.runs.directory import Run
from jaxalign.runs.records import digest
from jaxalign.safety.calibration import judge_title

_Labels = dict[str, str | None]


def second_judges(session: HarmSession, runs: Sequence[tuple[AskedModel, Run]]) -> list[dict[str, Any]]:
    """Return κ between the judges of this command and each other set of judges that has judged the same responses.

    Each is {judges (names), models (how many both have judged), kappa (an estimate)}; κ is over the responses of all
    these models.

    Args:
        session: the command.
        runs: for each model its finished run of stage=judge.
    """
    pairs: dict[str, list[tuple[_Labels, _Labels]]] = {}
    names: dict[str, str] = {}
    for model, judged in runs:
        mine = stored_config(judged.path)["identity"]
        seen = {digest(mine["judges"])}
        for other in session.stages(model).finished("judge"):
            theirs = stored_config(other.path)["identity"]
            who = digest(theirs.get("judges"))
            same = all(digest(theirs.get(key)) == digest(mine[key]) for key in ("generate", "cut"))
            if same and who not in seen:
                seen.add(who)
                told = other.results(**JUDGING)["judges"]
                harm = [one for one in told if one["judge"] in theirs["judges"]]
                names[who] = " and ".join(judge_title(one["judge"], one.get("model")) for one in harm)
                pairs.setdefault(who, []).append((_labels(judged), _labels(other)))
    return [
        {"judges": names[who], "models": len(some), "kappa": dataclasses.asdict(_kappa(some))}
        for who, some in pairs.items()
    ]


def _labels(judged: Run) -> _Labels:
    return harm_labels(judged, judged.results(**JUDGING)["judges"])


def _kappa(pairs: Sequence[tuple[_Labels, _Labels]]) -> Any:
    mine, theirs = zip(*(shared_labels(*pair) for pair in pairs), strict=True)
    return cohen_kappa(list(chain(*mine)), list(chain(*theirs))).kappa
