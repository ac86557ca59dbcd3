"""What a user says on the command line of files and of other people's runs, whichever command.

Every command that reads maps takes these flags, and gives them to `known`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

import typer

from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.maps.files.options import KEY_ROLES, ReadOptions
from xrf_sr_plans.measurement import alternatives


def _reader_names() -> list[str]:
    """Return the readers that a shell offers."""
    from xrf_sr_plans.maps.readers import READERS

    return [one.name for one in READERS]


ReaderFlag = Annotated[
    str | None,
    typer.Option(
        "--reader",
        help="Reader of files or of runs (see `xrf-sr readers`); without it, what recognises them.",
        autocompletion=_reader_names,
    ),
]
AxisUnitFlag = Annotated[
    str | None,
    typer.Option("--axis-unit", help="Unit of positions, such as mm; replaces what is said there."),
]
ElementsFlag = Annotated[
    str | None,
    typer.Option("--elements", help="Elements, between commas, to cut out of spectra: Fe,Zn,Pb_L."),
]
EnergyFlag = Annotated[
    str | None,
    typer.Option(
        "--energy-kev", help="Energy of bin 0 and width of a bin of spectra in keV, such as 0,0.01."
    ),
]
ChannelFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--channel",
        help="Of runs: an element's data keys, Fe=KEY,KEY or Fe=KEY[640:660]; repeatable.",
    ),
]
KeyFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--key",
        help=f"Of runs: ROLE=KEY, the role being {alternatives(KEY_ROLES)}; repeatable.",
    ),
]
RootMapFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--root-map", help="Of runs: ROOT=FOLDER, where named files are here; repeatable."
    ),
]


def known(
    *,
    elements: str | None = None,
    energy_kev: str | None = None,
    axis_unit: str | None = None,
    channel: Iterable[str] | None = None,
    key: Iterable[str] | None = None,
    root_map: Iterable[str] | None = None,
    step_um: float | None = None,
    step_y_um: float | None = None,
) -> ReadOptions:
    """Return what the user knows better than a file or a run.

    Raises
    ------
    ConfigError
        A value that can't be, or one that isn't of the form that is needed.
    """
    channels = [
        (element, tuple(_between_commas(keys)))
        for element, keys in _pairs("--channel", channel, "Fe=xs_fe")
    ]
    keys = _pairs("--key", key, "i0=sclr_i0")
    _refuse_doubled("--channel", [element for element, _ in channels])
    _refuse_doubled("--key", [role for role, _ in keys])
    return ReadOptions(
        axis_unit=axis_unit,
        elements=tuple(_between_commas(elements or "")),
        energy_kev=_energies(energy_kev),
        step_um=step_um,
        step_y_um=step_y_um,
        channels=tuple(channels),
        keys=tuple(keys),
        root_map=tuple(_pairs("--root-map", root_map, "/nsls2/data=/mnt/data")),
    )


def _energies(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        offset, width = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"--energy-kev is {text!r}; two numbers are needed, such as 0,0.01"
        ) from error
    return offset, width


def _pairs(flag: str, texts: Iterable[str] | None, example: str) -> list[tuple[str, str]]:
    """Return what was typed as NAME=VALUE."""
    found = []
    for text in texts or ():
        name, _, value = (part.strip() for part in text.partition("="))
        if not name or not value:
            raise ConfigError(f"{flag} is {text!r}; it should be like {example}")
        found.append((name, value))
    return found


def _refuse_doubled(flag: str, names: Sequence[str]) -> None:
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ConfigError(
            f"{flag} is given more than once for {', '.join(doubled)}; once is needed, with commas"
            " between data keys"
        )


def _between_commas(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
