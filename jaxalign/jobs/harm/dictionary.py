"""Which values the responses of a model carry by the dictionary of pyvalues, where that is installed."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from jaxalign.errors import UserError
from jaxalign.jobs.asked import AskedModel
from jaxalign.jobs.harm.generate import read_responses
from jaxalign.jobs.harm.judged_file import judged_records
from jaxalign.jobs.harm.session import HarmSession
from jaxalign.runs.directory import Run
from jaxalign.runs.records import damage, read_json_object, write_atomic
from jaxalign.safety.benchmarks.benchmark import cut_response
from jaxalign.safety.states import SPOKEN
from jaxalign.safety.value_dictionary import dictionary_parts, value_dictionary
from jaxalign.values.starter import load_starter

DICTIONARY_FILE = "dictionary.json"
"""What the dictionary has found in the responses of a judge stage, so that it reads them once."""


def dictionary_values(session: HarmSession, model: AskedModel, generated: Run, judged: Run) -> dict[str, Any] | None:
    """Return what the dictionary finds in the responses that say something (see `ValueDictionary.read`).

    `arguments` in it is how well it does on the starter arguments. If the package is not installed, what was found
    before is returned, or None.

    Args:
        session: the command.
        model: the model.
        generated: the run of its responses.
        judged: the run that judged them, which knows which of them say something.
    """
    dictionary, path = value_dictionary(), judged.path / DICTIONARY_FILE
    of = judged.results().get("files", {})  # the hash of what was judged
    known = _known(path)
    if (
        known is not None
        and known["of"] == of
        and (dictionary is None or known["found"]["dictionary"] == dictionary.name)
    ):
        return known["found"]
    if dictionary is None:
        return None
    spoken = {one["key"] for one in judged_records(judged.path) if one["state"] in SPOKEN}
    responses = [one for samples in read_responses(session, model, generated) for one in samples]
    texts = [
        cut_response(text, session.config.harm.cut) for key, text in responses if key in spoken and text is not None
    ]
    found = {**dictionary.read(texts), "arguments": _measured()}
    write_atomic(path, json.dumps({"of": of, "found": found}, indent=1) + "\n")
    return found


def _known(path: Path) -> dict[str, Any] | None:
    """Return what a file holds; None if it is not there or damaged, for it is only a copy of what can be read again."""
    if not path.is_file():
        return None
    try:
        known = read_json_object(path, "", of=dict, found=dict)
    except UserError:
        return None
    damaged = any(damage(part, fields) for _, part, fields in dictionary_parts(known["found"]))
    return None if damaged else known


@cache
def _measured() -> dict[str, Any]:
    dictionary = value_dictionary()
    assert dictionary is not None
    return dictionary.measure(load_starter(log=lambda line: None))
