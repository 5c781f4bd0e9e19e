"""Prompt templates that users can replace: texts with {fields}. Filling one fits the fields into its sentences."""

import re
from collections.abc import Iterable, Mapping, Sequence
from string import Formatter

from jaxalign.errors import UserError, did_you_mean

# Only these words lose their capital letter inside a sentence, because any other word may be a name.
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
    """Check that the texts under `key` have exactly the known names.

    Raises:
        UserError: a name is not known, or is missing.
    """
    for name in texts:
        if name not in known:
            raise UserError(f"{key}.{name} is not known{did_you_mean(str(name), known)}")
    missing = [f"{key}.{name}" for name in known if name not in texts]
    if missing:
        raise UserError(f"missing: {', '.join(missing)}")


def check_template(key: str, text: object, fields: Iterable[str], *, prompt: bool) -> str:
    """Return a template, after a check that it has each of the fields and no other.

    A prompt must end in a newline, and a response must not begin with a space, so that no token belongs to both.

    Raises:
        UserError: the template under `key` is not as described.
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
    """Return a checked template with its fields filled in.

    A text behind a word or a comma begins with a small letter if its first word cannot be a name. The template's full
    stop is left out behind a text that ends in a mark of its own.

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


def fill_lines(template: str, **fields: str) -> str:
    """Return a checked template with its fields filled in as they are; a line whose fields are all empty is left out.

    >>> fill_lines("{passage}\\n{question}\\n", passage="", question="Why?")
    'Why?\\n'
    """
    lines = []
    for line in template.splitlines(keepends=True):
        names = [name for _, name, _, _ in Formatter().parse(line) if name is not None]
        if not names or any(fields[name] for name in names):
            lines.append(line.format(**fields))
    return "".join(lines)


def uncapitalised(sentence: str) -> str:
    """Return a sentence with a small first letter, unless its first word may be a name, an acronym or `I`."""
    first = sentence.split(maxsplit=1)[:1]
    plain = bool(first) and first[0].rstrip(",").lower() in _PLAIN_OPENERS and first[0][1:] == first[0][1:].lower()
    return sentence[0].lower() + sentence[1:] if plain else sentence


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in sorted(names))
