"""Prompt templates that users can replace: text with {fields}, checked once, filled as sentences want it."""

import re
from collections.abc import Iterable
from string import Formatter

from jaxalign.errors import UserError, did_you_mean

# The words that may lose their capital inside a sentence. Anything else keeps it: it may be a name.
_PLAIN_OPENERS = frozenset(
    """
    a abolishing adopting adults all allowing an and animals any artists as at banks banning because being
    both businesses but by capital children cities citizens companies cosmetic countries couples
    democracies doctors drivers each employees employers every everybody everyone families farmers few for
    from given giving governments had having he her his homes hospitals houses how if immigrants in it
    it's its just kids landlords legalising legalizing letting libraries like local making mandatory many
    men migrants more most museums my neighbors neighbours news no nobody not nothing now nuclear nurses
    of on once one only organ other others our parents people people's politicians primary prisons private
    public religion requiring residents retired rich school schools scientists she shops since so social
    some someone students subsidizing such taxes teachers technology teenagers that the their them then
    there there's these they they're this those though to too towns universities using voters we we're
    wealthy well what when where whether which while who why with without women workers working you young
    your
    """.split()  # noqa: SIM905 (a list of literals would take a line for each)
)


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


def fill(template: str, **fields: str) -> str:
    """Fill a checked template.

    A text that comes after a word or a comma begins in lower case where that is safe; a full stop is left out
    after a text that brings its own mark.

    >>> fill("I agree that {claim}.", claim="We should vote")
    'I agree that we should vote.'
    >>> fill("Claim: {claim}.", claim="Is it time?")
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
