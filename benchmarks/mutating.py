"""Ways to damage documents, trees of JSON and bytes, for `mutations.py`."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Rng = np.random.Generator

PLAIN_VALUES: tuple[Callable[[], Any], ...] = (
    lambda: None,
    lambda: True,
    lambda: 0,
    lambda: -1,
    lambda: 1,
    lambda: 2**31,
    lambda: 2**63,
    lambda: 10**400,
    lambda: 0.5,
    lambda: -0.0,
    lambda: 1e-320,
    lambda: 1e30,
    lambda: 1.8e308,
    lambda: math.nan,
    lambda: math.inf,
    lambda: -math.inf,
    lambda: "",
    lambda: "Fe",
    lambda: "nan",
    lambda: "../../x",
    lambda: "x" * 10_000,
    lambda: "\ud800",
    lambda: "\0",
    lambda: [],
    lambda: {},
    lambda: [[]],
    lambda: [None],
    lambda: [[1.0], [1.0, 2.0]],
    lambda: [1.0, "a", None],
    lambda: {"a": {"b": []}},
    lambda: nested(900),
    lambda: [0.0] * 5000,
)
"""Values that JSON can hold, in some way."""

LIVE_VALUES: tuple[Callable[[], Any], ...] = (
    lambda: b"\xff\0",
    lambda: 1 + 2j,
    lambda: {1, 2},
    lambda: (1, 2),
    lambda: {1: 2, (3, 4): 5, None: 6},
    lambda: object(),
    lambda: np.float32("nan"),
    lambda: np.int64(7),
    lambda: np.array([]),
    lambda: np.array(3.0),
    lambda: np.zeros((2, 0)),
    lambda: np.full((3, 5), np.inf),
    lambda: np.array(["Fe", "Zn"]),
    lambda: np.array([object(), None], dtype=object),
)
"""Values that only a document in memory can hold."""


def nested(depth: int) -> list[Any]:
    """Return lists in lists."""
    tree: list[Any] = []
    for _ in range(depth):
        tree = [tree]
    return tree


def pick(rng: Rng, choices: Any) -> Any:
    """Return one of a sequence, as it is."""
    return choices[int(rng.integers(len(choices)))]


def some_value(rng: Rng, live: bool) -> Any:
    """Return a value that fits nowhere, or only by chance."""
    return pick(rng, (*PLAIN_VALUES, *LIVE_VALUES) if live else PLAIN_VALUES)()


def changed_value(rng: Rng, value: Any, live: bool) -> Any:
    """Return a value that is like another one, or altogether different."""
    kind = int(rng.integers(6))
    if isinstance(value, bool) or kind == 0:
        return some_value(rng, live)
    if isinstance(value, int | float) and abs(value) < 1e300:
        near = (value + 1, value - 1, -value, value * 1e6, float(value), str(value), value * 1.001)
        return pick(rng, near)
    if isinstance(value, str):
        near = (value[: len(value) // 2], value + "\0", value.upper(), value[::-1], [value])
        return pick(rng, near)
    if isinstance(value, list) and value:
        cut = int(rng.integers(len(value)))
        turned = value[::-1]
        return pick(rng, (value[:cut], value + value, turned, [value], value[0], value[cut:]))
    return some_value(rng, live)


def mutated_tree(rng: Rng, tree: Any, live: bool = False) -> Any:
    """Return dictionaries and lists with one place changed; what is not changed is shared."""
    # Down to a random place: further with each step, so that all depths are met.
    if not isinstance(tree, dict | list) or not tree:
        return changed_value(rng, tree, live)
    parent = copy.copy(tree)
    key = pick(rng, list(parent) if isinstance(parent, dict) else range(len(parent)))
    if isinstance(parent[key], dict | list) and parent[key] and rng.random() < 0.75:
        parent[key] = mutated_tree(rng, parent[key], live)
        return parent
    way = int(rng.integers(5))
    if way == 0:
        del parent[key]
    elif way == 1 and isinstance(parent, dict):
        other = pick(rng, ("x", "", str(key) + "_", *((7, None, (1, 2)) if live else ())))
        parent[other] = parent.pop(key)
    elif way == 2 and isinstance(parent, dict):
        parent[pick(rng, ("x", "uid", "data", "xrf_row"))] = some_value(rng, live)
    else:
        parent[key] = changed_value(rng, parent[key], live)
    return parent


def mutated_bytes(rng: Rng, data: bytes, other: bytes = b"") -> bytes:
    """Return bytes with a few of them flipped, overwritten, cut out, put in or exchanged."""
    raw = bytearray(data)
    way = int(rng.integers(8))
    at = int(rng.integers(max(1, len(raw))))
    length = int(2 ** rng.uniform(0, 9))
    if way == 0:
        return bytes(raw[:at])
    if way == 1:
        raw[at : at + length] = pick(rng, (b"\0", b"\xff")) * length
    elif way == 2:
        del raw[at : at + length]
    elif way == 3:
        raw[at:at] = rng.bytes(length)
    elif way == 4:
        raw[at : at + length] = other[at : at + length] or rng.bytes(length)
    elif way == 5:
        # A number that is in the file, made another one: 1, 2, 4 or 8 bytes of it.
        width = pick(rng, (1, 2, 4, 8))
        number = pick(rng, (0, 1, 2**31 - 1, 2**40, 2**63 - 1, 2**64 - 1)) % 256**width
        raw[at : at + width] = number.to_bytes(width, pick(rng, ("little", "big")))
    else:
        for _ in range(int(2 ** rng.uniform(0, 4))):
            raw[int(rng.integers(max(1, len(raw)))) :][:0] = b""
            if raw:
                raw[int(rng.integers(len(raw)))] ^= 1 << int(rng.integers(8))
    return bytes(raw)


def mutated_json(rng: Rng, text: bytes) -> bytes:
    """Return JSON with its content changed, or only its bytes."""
    if rng.random() < 0.35:
        return mutated_bytes(rng, text)
    if rng.random() < 0.02:
        return pick(rng, (b"[", b'{"a":')) * 100_000
    tree = json.loads(text)
    for _ in range(int(rng.integers(1, 3))):
        tree = mutated_tree(rng, tree)
    try:
        return json.dumps(tree).encode()
    except (ValueError, TypeError, RecursionError):
        return b"[" * 100_000


@dataclass(frozen=True)
class Item:
    """A document of a mutated stream."""

    name: str
    doc: Any
    origin: int
    """Its place in the stream before; -1 where it was changed."""
    source: int
    """Place of the document that it was made of."""


def mutated_stream(rng: Rng, documents: list[tuple[str, dict[str, Any]]]) -> list[Item]:
    """Return a stream of documents with one to four of them damaged, moved, doubled or lost."""
    items = [Item(name, doc, origin, origin) for origin, (name, doc) in enumerate(documents)]
    for _ in range(int(rng.integers(1, 5))):
        if not items:
            break
        at = int(rng.integers(len(items)))
        chosen = items[at]
        way = int(rng.integers(11))
        if way == 0:
            del items[at]
        elif way == 1:
            items.insert(int(rng.integers(len(items) + 1)), chosen)
        elif way == 2:
            items.insert(int(rng.integers(len(items))), items.pop(at))
        elif way == 3:
            # The events of a stretch in any order, as a store might give them.
            end = min(len(items), at + 2 + int(rng.integers(8)))
            places = [k for k in range(at, end) if items[k].name.startswith("event")]
            order = rng.permutation(len(places))
            moved = [items[places[k]] for k in order]
            for place, item in zip(places, moved, strict=True):
                items[place] = item
        elif way == 4:
            # Two documents for one: as it was, and damaged.
            items.insert(
                at, Item(chosen.name, mutated_tree(rng, chosen.doc, live=True), -1, chosen.source)
            )
        elif way == 5:
            names = ("start", "stop", "event", "event_page", "descriptor", "datum", "x", "")
            items[at] = Item(pick(rng, names), chosen.doc, -1, chosen.source)
        elif way == 6:
            items[at] = Item(chosen.name, some_value(rng, live=True), -1, chosen.source)
        elif way == 7:
            # The uids of another document.
            other = pick(rng, items).doc
            taken = {
                key: other[key]
                for key in ("uid", "descriptor", "run_start", "seq_num")
                if isinstance(other, dict) and key in other
            }
            if isinstance(chosen.doc, dict) and chosen.doc is not other:
                items[at] = Item(chosen.name, {**chosen.doc, **taken}, -1, chosen.source)
        elif way == 8 and isinstance(chosen.doc, dict) and isinstance(chosen.doc.get("data"), dict):
            # One number of an event, such as which row it is.
            data = dict(chosen.doc["data"])
            words = [key for key, value in data.items() if not isinstance(value, list | dict)]
            pages = [key for key, value in data.items() if isinstance(value, list) and value[:1]]
            if words:
                key = pick(rng, words)
                data[key] = changed_value(rng, data[key], live=False)
            elif pages:
                key = pick(rng, pages)
                data[key] = [changed_value(rng, data[key][0], live=False), *data[key][1:]]
            items[at] = Item(chosen.name, {**chosen.doc, "data": data}, -1, chosen.source)
        else:
            damaged = chosen.doc
            for _ in range(int(rng.integers(1, 4))):
                damaged = mutated_tree(rng, damaged, live=True)
            items[at] = Item(chosen.name, damaged, -1, chosen.source)
    return items


@dataclass(frozen=True)
class Subject:
    """A format, or one of the files of one."""

    name: str
    content: bytes
    """The whole file."""
    read: Callable[[bytes, bool], object]
    """Reads a file with that content. The flag asks for the way in which users read it."""
    mutate: Callable[[Rng, bytes], bytes]
    """Returns the content damaged."""
    is_hdf5: bool = False
    is_description: bool = False
    """Whether it only says where and of what the values of others are: damaged, it may say
    something else that is right as well."""
