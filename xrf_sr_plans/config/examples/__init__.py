"""Settings files to begin with: a simulated beamline, and three that are like real ones."""

from __future__ import annotations

from pathlib import Path

from xrf_sr_plans.errors import ConfigError

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Return the names of the examples."""
    return sorted(file.stem for file in _FOLDER.glob("*.toml"))


def example(name: str) -> Path:
    """Return the file of an example.

    Raises
    ------
    ConfigError
        There is none of that name.
    """
    if name not in names():
        raise ConfigError(f"no example {name!r}; one of {', '.join(names())}")
    return _FOLDER / f"{name}.toml"
