"""The terminal: a chat in the model's chat template, and the answers of several models side by side."""

import sys
from collections.abc import Mapping, Sequence

from rich.columns import Columns
from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from jaxalign.data.encoding import Encoder
from jaxalign.errors import UserError
from jaxalign.inference.generations import Engine
from jaxalign.inference.sampling_params import Request, SamplingParams, check_room
from jaxalign.pretrained.sources import ModelFiles


def check_chat(files: ModelFiles, sampling: SamplingParams) -> None:
    """Check that a chat is possible.

    Raises:
        UserError: there is no standard input, the model has no chat template, or its answers leave no room for a
            question.
    """
    if sys.stdin is None:  # closed by `<&-`
        raise UserError("there is no input to chat with: give prompt='...' or prompts=FILE")
    files.tokenizer.chat([{"role": "user", "content": "?"}])
    check_room(sampling, files.architecture.context)


def chat(
    console: Console, engine: Engine, files: ModelFiles, sampling: SamplingParams, system: str | None, name: str
) -> None:
    """Chat until the user types /quit or Ctrl-D; /new begins a new chat.

    If the chat and the next answer do not fit into the context together, the oldest turns are left out, and a line says
    so. Call `check_chat` first.
    """
    encoder, room = Encoder(files.tokenizer), files.architecture.context - sampling.max_tokens
    console.print(f"chat with {name}: /new begins a new chat, /quit or Ctrl-D ends it", style="dim")
    turns: list[Mapping[str, str]] = []
    while True:
        try:
            said = console.input(Text("you: ", "bold")).strip()
        except EOFError:
            console.print()
            return
        if said == "/quit":
            return
        if said == "/new":
            turns = []
            continue
        if not said:
            continue
        turns.append({"role": "user", "content": said})
        left_out = 0
        tokens = encoder.root(files.tokenizer.chat(turns, system))
        while len(tokens) > room and len(turns) > 1:
            turns, left_out = turns[2:], left_out + 2
            tokens = encoder.root(files.tokenizer.chat(turns, system))
        if left_out:
            console.print(f"the context is full: the {left_out} oldest turns are left out", style="dim")
        if len(tokens) > room:
            console.print(f"this has {len(tokens)} tokens, and there is room for {room}: write less", style="dim")
            turns.pop()
            continue
        console.print(Text(f"{name}:", "bold"), end=" ")
        shown = ""

        def show(_request: int, _index: int, text: str) -> None:
            nonlocal shown
            # Printed text cannot be taken back: if its end has changed, the whole answer is printed again.
            more = text.removeprefix(shown) if text.startswith(shown) else f"\n{text}"
            console.print(more, end="", highlight=False, markup=False, soft_wrap=True)
            shown = text

        ((completion,),) = engine.sample([Request(tokens)], sampling, on_text=show)
        console.print()
        turns.append({"role": "assistant", "content": completion.text})


class SideBySide:
    """Shows the answers of several models to one prompt: growing panels in a terminal, else plain text at the end."""

    def __init__(self, console: Console, names: Sequence[str], samples: int):
        self._console, self._names = console, names
        self._texts = [[""] * samples for _ in names]
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> "SideBySide":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
        elif kind is None:
            for name, texts in zip(self._names, self._texts, strict=True):
                for number, text in enumerate(texts, start=1):
                    head = name if len(texts) == 1 else f"{name}, {number} of {len(texts)}"
                    self._console.print(
                        f"── {head} ──\n{text.strip()}\n", highlight=False, markup=False, soft_wrap=True
                    )

    def update(self, model: int, sample: int, text: str) -> None:
        """Show a sample's text so far."""
        self._texts[model][sample] = text
        if self._live is not None:
            width = max(self._console.width // len(self._names), 24)
            panels = [
                Panel(Text("\n─ ─ ─\n".join(part.strip() for part in texts)), title=Text(name), width=width)
                for name, texts in zip(self._names, self._texts, strict=True)
            ]
            self._live.update(Columns(panels, padding=0), refresh=True)
