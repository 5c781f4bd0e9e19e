"""A chat in the terminal, in the model's chat template."""

from collections.abc import Mapping

from rich.console import Console

from jaxalign.data.encoding import Encoder
from jaxalign.inference.generations import Engine
from jaxalign.inference.sampler import Request, Sampling, check_room
from jaxalign.pretrained.sources import ModelFiles


def check_chat(files: ModelFiles, sampling: Sampling) -> None:
    """Raise UserError for a model without a chat template, and for answers that leave no room for a question."""
    files.tokenizer.chat([{"role": "user", "content": "?"}])
    check_room(sampling, files.architecture.context)


def chat(
    console: Console, engine: Engine, files: ModelFiles, sampling: Sampling, system: str | None, name: str
) -> None:
    """Talk until the user ends it (Ctrl-D or /quit); /new begins anew.

    When the talk no longer fits into the context beside the next answer, its oldest turns are left out, and a line says
    so. Call `check_chat` first.
    """
    encoder, room = Encoder(files.tokenizer), files.architecture.context - sampling.max_tokens
    console.print(f"chat with {name}: /new begins anew, /quit or Ctrl-D ends", style="dim")
    turns: list[Mapping[str, str]] = []
    while True:
        try:
            said = console.input("[bold]you:[/] ").strip()
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
            console.print(f"that is {len(tokens)} tokens, and there is room for {room}: say it shorter", style="dim")
            turns.pop()
            continue
        console.print(f"[bold]{name}:[/] ", end="")
        shown = ""

        def show(_request: int, _index: int, text: str) -> None:
            nonlocal shown
            # What stands there cannot be taken back: where an answer's end turned out otherwise, it is said again.
            more = text.removeprefix(shown) if text.startswith(shown) else f"\n{text}"
            console.print(more, end="", highlight=False, markup=False, soft_wrap=True)
            shown = text

        ((completion,),) = engine.sample([Request(tokens)], sampling, on_text=show)
        console.print()
        turns.append({"role": "assistant", "content": completion.text})
