"""What pytest's --jaxtyping-packages checks shapes with: beartype, which writes a function's checker only once."""

from collections.abc import Callable

from beartype import beartype

_CHECKERS: dict[tuple[str, str, str], Callable] = {}


def checked(function: Callable) -> Callable:
    """Return beartype's checker of a function that jaxtyping made from a signature, and whose body does nothing.

    A function inside of another one is made anew, with its checker, at each call of the outer one. The same place with
    the same annotations has the same checker; writing it again and again was a twentieth of the suite's time.
    """
    key = function.__module__, function.__qualname__, repr(function.__annotations__)
    if key not in _CHECKERS:
        _CHECKERS[key] = beartype(function)
    return _CHECKERS[key]
