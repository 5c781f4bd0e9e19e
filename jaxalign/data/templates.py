"""Prompt templates that users can replace: text with {fields}, checked once, filled as sentences want it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from string import Formatter

from jaxalign.errors import UserError, did_you_mean

# The words that may lose their capital inside a sentence. Anything else keeps it: it may be a name.
_PLAIN_OPENERS = frozenset(
    """
    a adults all alternative an any anyone artists as at both businesses by children cities citizens climate
    comments companies countries couples each electric employees employers equal every everybody everyone families
    farmers few first food football for from governments grown-up he her high his historic homes hospitals houses
    how if in is it it's its keeping local making many men more most museums my neighbors neighbours news no nobody
    not nothing nuclear on once one only organ our owners parents people phones political politicians primary
    prisons private public religion residents school schools she shops since so social solar some someone stray
    street students such taking taxes teachers technology teenagers that the their them there these they this those
    to toilet towns universities using voters voting we what when where which while who why with without women
    workers young your zoos
    """.split()  # noqa: SIM905 (a list of literals would take a line for each)
)


def check_names(key: str, texts: Mapping[str, object], known: Sequence[str]) -> None:
    """Raise UserError where the texts under `key` are not exactly those that are known."""
    for name in texts:
        if name not in known:
            raise UserError(f"{key}.{name} is not known{did_you_mean(str(name), known)}")
    missing = [f"{key}.{name}" for name in known if name not in texts]
    if missing:
        raise UserError(f"missing: {', '.join(missing)}")


def check_template(key: str, text: object, fields: Iterable[str], *, prompt: bool) -> str:
    """Return a template that has each of the fields, and no other; raises UserError naming `key`.

    A prompt ends in a newline and a response begins without a space: texts are cut into segments only there.
    """
    wanted = set(fields)
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{key} must be a text with {_listed(wanted)}")
    try:
        pieces = list(Formatter().parse(text))
    except ValueError as error:
        raise UserError(f"{key} has a brace that does not pair ({error}): write {{{{ for a brace itself") from error
    found = {name for _, name, _, _ in pieces if name is not None}
    for name in sorted(found - wanted):
        raise UserError(f"{key} has an unknown field {{{name}}}{did_you_mean(name, wanted)}")
    if wanted - found:
        raise UserError(f"{key} lacks {_listed(wanted - found)}: every field must stand in the text")
    if any(spec or conversion for _, _, spec, conversion in pieces):
        raise UserError(f"{key} formats a field: write plain {_listed(wanted)}")
    if prompt and not text.endswith("\n"):
        raise UserError(
            f"{key} must end in a newline (in YAML: a block opened by |), so that the response stands apart"
        )
    if not prompt and text != text.strip():
        raise UserError(f"{key} must not begin or end with a space or a newline")
    return text


def fill_template(template: str, **fields: str) -> str:
    """Fill a checked template.

    A text that comes after a word or a comma begins in lower case where that is safe; a full stop is left out
    after a text that brings its own mark.

    >>> fill_template("I agree that {claim}.", claim="We should vote")
    'I agree that we should vote.'
    >>> fill_template("Claim: {claim}.", claim="Is it time?")
    'Claim: Is it time?'
    """
    text = ""
    for literal, name, _, _ in Formatter().parse(template):
        ended = literal.startswith(".") and re.search(r"[.!?…][\"'”’)]?$", text)
        text += literal[1:] if ended else literal
        if name is not None:
            text += uncapitalised(fields[name]) if re.search(r"[a-z,] $", text) else fields[name]
    return text


def uncapitalised(sentence: str) -> str:
    """Lower the first letter where the first word is a plain one, never that of `I`, an acronym or a name."""
    first = sentence.split(maxsplit=1)[:1]
    plain = bool(first) and first[0].rstrip(",").lower() in _PLAIN_OPENERS and first[0][1:] == first[0][1:].lower()
    return sentence[0].lower() + sentence[1:] if plain else sentence


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in sorted(names))
