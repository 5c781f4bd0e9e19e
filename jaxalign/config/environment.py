"""Variables of the environment as values of a configuration: places, names and numbers, but no secrets."""

import contextlib
import os
import re
from collections.abc import Iterator

from omegaconf import OmegaConf
from omegaconf.resolvers import oc

from jaxalign.errors import UserError

_SECRET = re.compile(
    r"(key|token)s?([^a-z]|$)|(?<![a-z])(auth|pass|pat)([^a-z]|$)|secret|passw|passphrase|credential|cookie", re.I
)
"""What the name of a variable holds that is secret, as far as a name tells."""

_ABSENT = object()


@contextlib.contextmanager
def without_secrets() -> Iterator[None]:
    """Refuse `${oc.env:NAME}` where it stands for a secret: values are printed, and written into runs.

    A variable that holds a number is a number, as elsewhere on a command line.
    """
    OmegaConf.register_new_resolver("oc.env", _variable, replace=True)
    try:
        yield
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)


def _variable(name: str, default: object = _ABSENT) -> str | int | float | None:
    name = str(name)
    if _SECRET.search(name):
        raise UserError(
            f"${{oc.env:{name}}} is not allowed: by its name it is a secret, and values are printed and written into "
            "runs; leave it out (the keys of servers and of the hub are read from the environment itself)"
        )
    value = os.environ.get(name, default)
    if value is _ABSENT:
        raise UserError(
            f"the environment has no {name}, which ${{oc.env:{name}}} asks for: set it, or give another value with "
            f"${{oc.env:{name},VALUE}}"
        )
    if value is None:
        return None
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            if str(number := kind(str(value))) == value:
                return number
    return str(value)
