"""Which data keys hold the counts of which element, and what of an array is counts of a frame.

Beamlines write a column for each detector element, or one array of all; scalars, or spectra. The
values of several detector elements are added up. An axis of an array that is neither that of the
frames nor plausibly one of detector elements is refused: of a spectrum taken for detector elements
nobody would see that it is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xrf_sr_plans.errors import AssemblyError

ChannelKeys = str | Sequence[str]
"""The data key of an element's counts, or those of several detector elements, to be added up.
``"fluor[640:660]"`` stands for the bins 640 to 659 of the spectra under ``fluor``."""

MOST_DETECTOR_ELEMENTS = 48
"""Longest axis that is taken for one of detector elements. Spectra have 64 bins or more."""

_WITH_BINS = re.compile(r"(?P<key>.+)\[(?P<first>\d+):(?P<end>\d+)\]")
_SPECTRAL_DIMS = ("energy", "bin", "mca", "spectr")
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


@dataclass(frozen=True)
class Part:
    """One data key of an element's counts.

    Parameters
    ----------
    key
        The data key.
    bins
        First bin and the one behind the last, where the key holds spectra; None: it holds counts.
    """

    key: str
    bins: tuple[int, int] | None = None


@dataclass(frozen=True)
class Channel:
    """Where the counts of an element are: in the sum of some data keys."""

    element: str
    parts: tuple[Part, ...]


def channels_of(channels: Mapping[str, ChannelKeys], owner: str) -> list[Channel]:
    """Return the channels that a user named.

    Parameters
    ----------
    channels
        Data key or data keys by element.
    owner
        Whose they are, for the message.

    Raises
    ------
    AssemblyError
        There is none, an element has no key, one is a monitor of the beam, or one is no text.
    """
    if not channels:
        raise AssemblyError(f"{owner}: no channel is named; channels={{'Fe': data key}} is needed")
    found = []
    for element, given in channels.items():
        if is_monitor(element):
            raise AssemblyError(
                f"{owner}: {element!r} is a monitor of the beam, no element; give it as i0_key"
            )
        keys = [given] if isinstance(given, str) else list(given)
        if not keys or not all(isinstance(key, str) for key in keys):
            raise AssemblyError(
                f"{owner}, channel {element!r}: data keys are {given!r}; a data key or a list of"
                " them is needed"
            )
        found.append(Channel(element, tuple(_part(key, f"{owner}, channel {element!r}")
                                            for key in keys)))  # fmt: skip
    return found


def is_monitor(name: str) -> bool:
    """Return whether a channel is one of the beam's monitors (I0, I1, It), not of an element."""
    return _MONITOR.fullmatch(name.strip()) is not None


def _part(text: str, owner: str) -> Part:
    match = _WITH_BINS.fullmatch(text)
    if match is None:
        return Part(text)
    first, end = int(match["first"]), int(match["end"])
    if first >= end:
        raise AssemblyError(f"{owner}: {text!r} has no bins; the second should be above the first")
    return Part(match["key"], (first, end))


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


def pixel_value(value: Any, part: Part, dims: Sequence[str], owner: str) -> float:
    """Return what the detector elements counted in one frame, all together.

    Parameters
    ----------
    value
        The value of one event: a number, or an array of detector elements and bins.
    part
        Its data key.
    dims
        Names of the array's axes, as far as the descriptor has them.
    owner
        Whose it is, for the message.

    Raises
    ------
    AssemblyError
        It is no number, or has an axis that is neither of detector elements nor of bins.
    """
    return float(_reduced(numbers(value, owner)[None], part, ("time", *dims), owner)[0])


def frame_values(
    value: Any, part: Part, num: int | None, usual: int, dims: Sequence[str], owner: str
) -> np.ndarray:
    """Return what the detector elements counted in each frame [frame], all together.

    Parameters
    ----------
    value
        An array with an axis of frames, and others of detector elements and bins.
    part
        Its data key.
    num
        Number of frames, if other channels tell it.
    usual
        Number of frames of a whole row.
    dims
        Names of the array's axes, as far as the descriptor has them.
    owner
        Whose it is, for the message.

    Raises
    ------
    AssemblyError
        It holds no numbers, doesn't say which axis is that of the frames, or has an axis that is
        neither of frames nor of detector elements nor of bins.
    """
    values = numbers(value, owner)
    if values.ndim == 0:
        values = values[None]
    axis = _frame_axis(values.shape, part, num, usual, owner)
    names = list(dims) if len(dims) == values.ndim else [""] * values.ndim
    names = [names[axis], *names[:axis], *names[axis + 1 :]]
    return _reduced(np.moveaxis(values, axis, 0), part, names, owner)


def numbers(value: Any, owner: str) -> np.ndarray:
    """Return a value of a document as an array of floats.

    Raises
    ------
    AssemblyError
        It holds no numbers: an external array that was not filled, or lists of different lengths.
    """
    try:
        return np.asarray(value, dtype=float)
    except (TypeError, ValueError) as error:
        raise AssemblyError(f"{owner}: holds no numbers (is it filled?): {error}") from error


def _frame_axis(shape: tuple[int, ...], part: Part, num: int | None, usual: int, owner: str) -> int:
    # The last axis of spectra is that of the bins.
    free = len(shape) - 1 if part.bins is not None and len(shape) > 1 else len(shape)
    if free == 1:
        return 0
    for wanted in (num, usual):
        fitting = [axis for axis in range(free) if shape[axis] == wanted]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            break
    raise AssemblyError(
        f"{owner}: has the shape {shape}; exactly one axis of {num if num is not None else usual}"
        " frames is needed"
    )


def _reduced(values: np.ndarray, part: Part, dims: Sequence[str], owner: str) -> np.ndarray:
    """Return values [frame, ...] as counts [frame]."""
    if not all(values.shape[1:]):
        raise AssemblyError(f"{owner}: is empty; a number is needed")
    if part.bins is not None:
        first, end = part.bins
        if values.ndim < 2 or end > values.shape[-1]:
            raise AssemblyError(
                f"{owner}: has the shape {values.shape}; there are no bins {first}:{end} in it"
            )
        values = values[..., first:end].sum(axis=-1)
        dims = dims[:-1]
    names = list(dims) if len(dims) == values.ndim else [""] * values.ndim
    long = [
        axis
        for axis in range(1, values.ndim)
        if values.shape[axis] > MOST_DETECTOR_ELEMENTS
        or any(word in names[axis].lower() for word in _SPECTRAL_DIMS)
    ]
    unknown = [axis for axis in range(1, values.ndim) if values.shape[axis] > 1]
    if long:
        key = part.key
        raise AssemblyError(
            f"{owner}: has the shape {values.shape}, and an axis of {values.shape[long[-1]]} is"
            " taken for one of bins or of an image; for a spectrum name the bins of the element's"
            f" line, as in {key + '[640:660]'!r}"
        )
    if len(unknown) > 1:
        raise AssemblyError(
            f"{owner}: has the shape {values.shape}; one axis of detector elements is understood,"
            f" not {len(unknown)}"
        )
    return values.reshape(len(values), -1).sum(axis=1)
