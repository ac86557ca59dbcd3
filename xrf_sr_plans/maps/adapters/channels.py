"""Which data keys hold the counts of which element, and what of an array is counts of a frame.

Beamlines write a column for each detector element, or one array of all; scalars, or spectra. The
values of several detector elements are added up. An axis of an array that is neither that of the
frames nor plausibly one of detector elements is refused: of a spectrum taken for detector elements
nobody would see that it is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xrf_sr_plans.errors import AssemblyError
from xrf_sr_plans.maps.adapters.element_keys import is_monitor

ChannelKeys = str | Sequence[str]
"""The data key of an element's counts, or those of several detector elements, to be added up.
``"fluor[640:660]"`` stands for the bins 640 to 659 of the spectra under ``fluor``."""

MOST_DETECTOR_ELEMENTS = 48
"""Longest axis that is taken for one of detector elements. Spectra have 64 bins or more."""

_WITH_BINS = re.compile(r"(?P<key>.+)\[(?P<first>\d+):(?P<end>\d+)\]")
_SPECTRAL_DIMS = ("energy", "bin", "mca", "spectr")


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


def _part(text: str, owner: str) -> Part:
    match = _WITH_BINS.fullmatch(text)
    if match is None:
        return Part(text)
    first, end = int(match["first"]), int(match["end"])
    if first >= end:
        raise AssemblyError(f"{owner}: {text!r} has no bins; the second should be above the first")
    return Part(match["key"], (first, end))


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
