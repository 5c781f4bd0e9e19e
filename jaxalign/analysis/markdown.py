"""Text of data and models in Markdown. It stays text, whatever characters are in it (CommonMark 0.31, GitHub's tables).

Escapes stand only where a character would mean something, so that ordinary names and numbers are the same in the file.
"""

import re

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_ANYWHERE = re.compile(
    r"[\\`*\[<|~$]"  # escapes, code, emphasis, links and images, HTML, cells of tables, strikethrough, formulas
    r"|&(?=#?\w+;)"  # entities
    r"|(?<![^\W_])_|_(?![^\W_])"  # emphasis; inside a word, _ means nothing
    r"|:(?=//)|(?<=\bwww)\.",  # addresses that become links by themselves
    re.IGNORECASE,
)
_AT = re.compile(r"@(?=\w)")
"""Of an e-mail address, or of a mention. GitHub finds both after it has read the escapes, but not across a comment."""
_FIRST = re.compile(
    r"[#>]|[-+](?=\s|$)|[-=](?=[-=\s]*$)"  # headings, quotes, lists, and lines that make the line above a heading
)
_NUMBER = re.compile(r"(\d{1,9})([.)])(?=\s|$)")


def printable(text: str) -> str:
    r"""Return a text without the control characters that would move a cursor, change a title, and so on.

    >>> printable("\x1b[31mred\x07\r\n")
    '[31mred\n'
    """
    return _CONTROL.sub("", text)


def markdown_text(text: str) -> str:
    r"""Return a text as one line of Markdown that shows it as it is.

    >>> print(markdown_text("# 5 * 3 <b>\n[snake_case](http://a.b) | c"))
    \# 5 \* 3 \<b> \[snake_case](http\://a.b) \| c
    """
    line = _AT.sub("@<!-- -->", _ANYWHERE.sub(r"\\\g<0>", printable(" ".join(text.split()))))
    if _FIRST.match(line):
        return f"\\{line}"
    return _NUMBER.sub(r"\1\\\2", line, count=1) if _NUMBER.match(line) else line


def markdown_code(text: str) -> str:
    """Return a text as one line of code.

    >>> print(markdown_code("x = `y`"))
    `` x = `y` ``
    """
    line = printable(" ".join(text.split()))
    ticks = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    return f"{ticks} {line} {ticks}" if len(ticks) > 1 else f"`{line}`"


def markdown_quote(text: str) -> list[str]:
    """Return a text as the lines of a quotation."""
    return [f"> {markdown_text(line)}" for line in text.splitlines()]
