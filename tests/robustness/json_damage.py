"""JSON whose values are gone, of another type, huge, deep or twice there."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

from tests.robustness.mutations import mutated

_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 16, 14, 256, 1 << 31, 1 << 64, 10**400, 0.5, -0.0, 1e308, 1e-320),
    *(
        "",
        "x",
        "0",
        "red",
        "stretch",
        "letterbox",
        "sigmoid",
        "int8",
        "x" * 2000,
        "\x1b[31m",
        "\u202e",
        "\ud800",
        "a\0b",
    ),
    *([], [1], [0, 0, 0], [255, 255, 256], ["red"] * 300, {}, {"": 1}, {"a": {"b": {"c": {}}}}, [[[[[[[[[[1]]]]]]]]]]),
)
_TEXTS = ("NaN", "Infinity", "-Infinity", "1e999", "0x10", "01", '"\\ud800"', "[" * 100_000, '{"a":' * 2000, "9" * 5000)


def damaged_json(text: str, rng: random.Random) -> bytes:
    """A damaged copy of a JSON object's text."""
    if rng.random() < 0.2:
        return mutated(text.encode(), text[::-1].encode(), rng)
    data = json.loads(text)
    for _ in range(rng.choice([1, 1, 2, 4])):
        parent, key = _place(data, rng)
        if parent is None:
            continue
        _change(parent, key, rng)
    written = json.dumps(data, ensure_ascii=rng.random() < 0.5)
    if rng.random() < 0.1:
        parent, key = _place(data, rng)
        if isinstance(parent, dict):  # a mark that no other value is, for what JSON's writer does not write
            parent[key] = "<here>"
            written = json.dumps(data).replace('"<here>"', rng.choice(_TEXTS))
    if rng.random() < 0.05:
        written = written.replace("{", '{"name": "twice", "name": "there", ', 1)
    return written.encode(errors="surrogatepass")


def _value(rng: random.Random) -> Any:
    return copy.deepcopy(rng.choice(_VALUES))  # what is put into a list must not be there for the next seed


def _place(data: Any, rng: random.Random) -> tuple[Any, Any]:
    """(object or list, key) of a value anywhere in it."""
    parent, key = None, None
    here = data
    while isinstance(here, (dict, list)) and here:
        parent = here
        key = rng.choice(list(here)) if isinstance(here, dict) else rng.randrange(len(here))
        here = parent[key]
        if rng.random() < 0.25:
            break
    return parent, key


def _change(parent: Any, key: Any, rng: random.Random) -> None:
    kind = rng.randrange(5)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, dict):
        parent[rng.choice(["", "x", "margin", "schema", "x" * 3000, "\x1b"])] = _value(rng)
    elif kind == 2 and isinstance(parent, list):
        parent.insert(key, rng.choice([parent[key], _value(rng)]))
    elif kind == 3 and isinstance(parent[key], (int, float)):
        parent[key] = rng.choice(
            [parent[key] + 1, -parent[key], parent[key] * 2, float(min(parent[key], 1e300)), str(parent[key])]
        )
    else:
        parent[key] = _value(rng)
