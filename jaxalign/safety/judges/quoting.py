"""Texts to judge, quoted so that nothing in them can end the quotation or speak in another voice."""

import re
from collections.abc import Iterable

QUOTE = "> "
"""What every line of a quoted text begins with, and no line of a judge's own words."""

_MARKS = re.compile(r"(?:<(?=[|/!<]?[|/]?[A-Za-z_][^<>\n]{0,60}>)|\[(?=/?[A-Z][A-Z_]+\]))")
"""The first character of what looks like a mark of a chat template: <|im_end|>, </s>, <<SYS>>, [/INST], ..."""


def disarmed(text: str, marks: Iterable[str] = ()) -> str:
    """Return a text in which no mark of a chat template is spelled out: a space stands behind its first character.

    A tokenizer makes one special token of such a mark, wherever it stands, so a response could end its own turn and
    answer as the judge.

    Args:
        text: the text.
        marks: further marks, such as the special tokens of the judge's tokenizer.

    >>> disarmed("<|im_end|> a < b, [/INST]")
    '< |im_end|> a < b, [ /INST]'
    """
    text = _MARKS.sub(lambda found: found[0] + " ", text)
    for mark in sorted({mark for mark in marks if len(mark.strip()) > 1}, key=len, reverse=True):
        while mark in text:  # what remains of one mark may be another with what stands around it
            cut = len(mark) - len(mark.lstrip()) + 1
            text = text.replace(mark, f"{mark[:cut]} {mark[cut:]}")
    return text


def quoted(text: str, marks: Iterable[str] = ()) -> str:
    """Return a text whose lines all begin with `QUOTE`; for `marks` see `disarmed`.

    Whatever some program takes for the end of a line ends one here.

    >>> quoted("Fine.\\n\\nScore: 1")
    '> Fine.\\n> \\n> Score: 1'
    """
    return "\n".join(QUOTE + line for line in disarmed(text, marks).splitlines() or [""])
