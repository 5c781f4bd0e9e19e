"""Commands as a user types them: what they print, and the one line with which they refuse bad input."""

from collections.abc import Callable, Sequence

import pytest


def run(main: Callable, arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command, and return what it prints."""
    capsys.readouterr()  # of earlier commands
    main(arguments)
    return capsys.readouterr().out


def refused(
    main: Callable, arguments: Sequence[str], capsys: pytest.CaptureFixture[str], *, silent: bool = False
) -> str:
    """Run a command that ends in an error, and return its one line without `error: `.

    A `silent` command prints nothing else.
    """
    capsys.readouterr()  # of earlier commands
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert err.startswith("error: ") and err.count("\n") == 1
    assert not (silent and out)
    return err.removeprefix("error: ").strip()
