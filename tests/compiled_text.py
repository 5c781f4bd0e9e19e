"""What compiled programs send between devices, read from their text."""

import re
from typing import NamedTuple


class Sent(NamedTuple):
    """One collective: its kind, such as all-gather, its arrays as (shape, bytes), and whether a loop repeats it."""

    kind: str
    arrays: list[tuple[tuple[int, ...], int]]
    in_loop: bool


KINDS = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute|ragged-all-to-all"
BITS = {"pred": 8, "bf16": 16}  # of the others, the name ends with them


def collectives(text: str) -> list[Sent]:
    """Return the collectives of a compiled program."""
    sent = re.compile(rf"= (.*?) ({KINDS})(-start)?\(")
    computation, calls, found = "", {}, []
    for line in text.splitlines():
        if begins := re.match(r"(?:ENTRY )?%?([\w.-]+) \(.*\{$", line):
            computation = begins[1]
        named = re.findall(r"(?:calls|to_apply|body|condition|branch_computations)=\{?%?([\w.-]+)", line)
        calls.setdefault(computation, set()).update(named)
        if match := sent.search(line):
            found.append((computation, match[2], re.findall(r"(\w+?\d*)\[([\d,]*)\]", match[1])))
    inside, waiting = set(), re.findall(r"body=%?([\w.-]+)", text)
    while waiting:
        inside.add(one := waiting.pop())
        waiting += calls.get(one, set()) - inside
    return [Sent(kind, [_array(*array) for array in arrays], place in inside) for place, kind, arrays in found]


def _array(dtype: str, sizes: str) -> tuple[tuple[int, ...], int]:
    shape = tuple(map(int, filter(None, sizes.split(","))))
    count = BITS.get(dtype) or int(re.sub(r"\D", "", dtype[1:3]))
    for size in shape:
        count *= size
    return shape, count // 8
