"""A model's chat template: code of a third party, which runs in a sandbox and gets nothing but texts and a date."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jinja2 import TemplateError

from jaxalign.errors import UserError
from jaxalign.pretrained.template_sandbox import render
from jaxalign.runs.reading import is_cut

DATE = "2024-07-26"
"""The date for a template that asks for one, where `model.date` gives no other: the one that Llama 3.1's template names
where nobody tells it the date. With today's date, a run that goes on tomorrow would have other prompts."""


@dataclass(frozen=True)
class ChatTemplate:
    """A template, the special tokens that it may write by their names (`bos_token`, ...), and the date it gets."""

    source: str
    special: Mapping[str, Any]
    date: str = DATE

    @property
    def asks_date(self) -> bool:
        """Whether the template asks for the date, as far as its text tells."""
        return "strftime_now" in self.source

    def render(self, turns: Sequence[Mapping[str, str]], *, answering: bool) -> str:
        """Return messages as one text; with `answering`, it ends where the assistant's answer begins.

        Raises:
            UserError: the template refuses the messages, has an error, or writes too much or half of a character.
        """
        messages = [dict(turn) for turn in turns]
        given = {"tools": None, "documents": None, "add_generation_prompt": answering}
        now = datetime.strptime(self.date, "%Y-%m-%d")
        try:
            text = render(self.source, messages, **self.special, **given, strftime_now=now.strftime)
        except Exception as error:  # whatever the code of a third party raises
            kind = "" if isinstance(error, TemplateError) else f"{type(error).__name__}: "
            reason = " ".join(str(error).split()) or "no reason given"
            raise UserError(
                f"the model's chat template refuses these messages: {kind}{reason:.200}; mend the template, or use "
                "model.prompt_format=plain"
            ) from error
        if is_cut(text):
            raise UserError("the model's chat template writes half of a surrogate pair, which no tokenizer can take")
        return text
