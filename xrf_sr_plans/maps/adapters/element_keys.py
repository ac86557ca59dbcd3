"""Which data keys are named after which element, and which after a monitor of the beam."""

from __future__ import annotations

import re
from collections.abc import Iterable

from xrf_sr_plans.errors import AssemblyError

_SYMBOLS = frozenset(
    [
        "Na",
        "Mg",
        "Al",
        "Si",
        "P",
        "S",
        "Cl",
        "Ar",
        "K",
        "Ca",
        "Sc",
        "Ti",
        "V",
        "Cr",
        "Mn",
        "Fe",
        "Co",
        "Ni",
        "Cu",
        "Zn",
        "Ga",
        "Ge",
        "As",
        "Se",
        "Br",
        "Kr",
        "Rb",
        "Sr",
        "Y",
        "Zr",
        "Nb",
        "Mo",
        "Tc",
        "Ru",
        "Rh",
        "Pd",
        "Ag",
        "Cd",
        "In",
        "Sn",
        "Sb",
        "Te",
        "I",
        "Xe",
        "Cs",
        "Ba",
        "La",
        "Ce",
        "Pr",
        "Nd",
        "Pm",
        "Sm",
        "Eu",
        "Gd",
        "Tb",
        "Dy",
        "Ho",
        "Er",
        "Tm",
        "Yb",
        "Lu",
        "Hf",
        "Ta",
        "W",
        "Re",
        "Os",
        "Ir",
        "Pt",
        "Au",
        "Hg",
        "Tl",
        "Pb",
        "Bi",
        "Po",
        "At",
        "Rn",
        "Fr",
        "Ra",
        "Ac",
        "Th",
        "Pa",
        "U",
        "Np",
        "Pu",
        "Am",
    ]
)
# Words that data keys have for other things than elements, where written in small letters.
_NO_ELEMENTS_IN_SMALL = frozenset(
    [
        "p",
        "s",
        "k",
        "v",
        "y",
        "i",
        "u",
        "w",
        "as",
        "at",
        "in",
        "no",
        "am",
        "pa",
        "la",
        "os",
        "pm",
        "re",
        "co",
        "er",
        "th",
        "np",
        "po",
        "fr",
    ]
)
_LINES = re.compile(r"(?P<symbol>[A-Z][a-z]?)(?:[KLM][abl]?\d?)?")
_LINE_TOKENS = frozenset(["k", "l", "m", "ka", "kb", "la", "lb", "ma", "k1", "l1", "l2", "l3"])
_MONITOR = re.compile(r"(?:i[0-9]|it|ion|us_ic|ds_ic|sclr.*|.*_i0)", re.IGNORECASE)


def is_monitor(name: str) -> bool:
    """Return whether a channel is one of the beam's monitors (I0, I1, It), not of an element."""
    return _MONITOR.fullmatch(name.strip()) is not None


def guessed_channels(keys: Iterable[str], owner: str) -> dict[str, list[str]]:
    """Return the data keys by element, as far as their names say it.

    A key tells its element by a word of its own (``xs_fe``, ``Det1_Fe``, ``roi-Fe_K``). Keys of one
    element that differ only in numbers are its detector elements.

    Parameters
    ----------
    keys
        Data keys that may hold counts.
    owner
        Whose they are, for the message.

    Raises
    ------
    AssemblyError
        None of them names an element, or those of an element are of different kinds.
    """
    keys = list(keys)
    # Element -> kind of key, its numbers left out -> keys.
    kinds: dict[str, dict[str, list[str]]] = {}
    for key in keys:
        named = _element_in(key)
        if named is not None and not is_monitor(key):
            element, rest = named
            kinds.setdefault(element, {}).setdefault(re.sub(r"\d+", "#", rest), []).append(key)
    if not kinds:
        there = ", ".join(keys[:20]) or "none"
        raise AssemblyError(
            f"{owner}: no data key is named after an element; give channels={{'Fe': data key}}."
            f" There are {there}"
        )
    # The kind that most elements have.
    share = {
        kind: sum(kind in one for one in kinds.values()) for of in kinds.values() for kind in of
    }
    found = {}
    for element, of in kinds.items():
        most = max(share[kind] for kind in of)
        best = [kind for kind in of if share[kind] == most]
        if len(best) > 1:
            several = ", ".join(of[kind][0] for kind in best)
            raise AssemblyError(
                f"{owner}: {element} may be in {several}; give channels={{{element!r}: data key}}"
            )
        found[element] = of[best[0]]
    return found


def _element_in(key: str) -> tuple[str, str] | None:
    """Return the element that a data key names, and the rest of the key."""
    tokens = re.split(r"([^A-Za-z0-9]+)", key)
    for place in range(len(tokens) - 1, -1, -1):
        token = tokens[place]
        match = _LINES.fullmatch(token)
        symbol = ""
        if match is not None and match["symbol"] in _SYMBOLS:
            symbol = match["symbol"]
        elif token.islower() and token not in _NO_ELEMENTS_IN_SMALL:
            symbol = token.capitalize() if token.capitalize() in _SYMBOLS else ""
        if not symbol or (place and token.lower() in _LINE_TOKENS):
            continue
        return symbol, "".join([*tokens[:place], "*", *tokens[place + 1 :]])
    return None
