"""Where settings come from, and what is refused on the way."""

from __future__ import annotations

import difflib
import os
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError, create_model
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsError

from xrf_sr_plans.config.analysis import AnalysisSettings
from xrf_sr_plans.config.settings import Settings
from xrf_sr_plans.errors import ConfigError, in_words

PREFIX = "XRF_SR_"
"""What the name of an environment variable begins with."""
SIMULATION_PREFIX = "XRF_SIM_"
"""What short names of the simulation's variables begin with."""
FILE_VARIABLE = "XRF_SR_SETTINGS"
"""The variable that names the settings file."""
_NO_SETTINGS = (FILE_VARIABLE, "XRF_SR_READ_ROOTS")
"""Variables with our prefix that are not settings of a session."""
_SHORT = {
    **{f"{PREFIX}{name.upper()}": f"analysis.{name}" for name in AnalysisSettings.model_fields},
    f"{PREFIX}STORE": "store.where",
    f"{PREFIX}APPROVALS": "approvals.folder",
    f"{PREFIX}SURVEYS": "page.surveys",
    f"{PREFIX}PAGE": "page.serve",
    f"{PREFIX}PAGE_HOST": "page.host",
    f"{PREFIX}PAGE_PORT": "page.port",
    f"{PREFIX}LIVE": "page.live",
    f"{SIMULATION_PREFIX}CLOCK": "simulated.clock",
    f"{SIMULATION_PREFIX}SAMPLE": "simulated.sample",
}
"""Short names of variables, and which setting each of them is."""
_NAMES: dict[str, Any] = {"env_prefix": PREFIX, "env_nested_delimiter": "__"}
S = TypeVar("S", bound=Settings)


class _EnvironmentSource(EnvSettingsSource):
    """The environment that was handed over, in the place of that of this process."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._given = {name.lower(): value for name, value in variables.items()}
        # The settings as pydantic-settings looks for them in the environment.
        fields: Any = {name: (one.annotation, one) for name, one in Settings.model_fields.items()}
        super().__init__(create_model("Variables", __base__=BaseSettings, **fields), **_NAMES)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return self._given


def load(
    kind: type[S],
    path: str | Path | None,
    environment: Mapping[str, str] | None,
    overrides: Mapping[str, Any],
) -> S:
    """Return settings from a file, the environment and keywords; see `Settings.load`."""
    variables = {
        name: value
        for name, value in (os.environ if environment is None else environment).items()
        if name.startswith((PREFIX, SIMULATION_PREFIX)) and value
    }
    path = path or variables.get(FILE_VARIABLE)
    given = [(dict(overrides), "call")]
    if path is not None:
        given.insert(0, (_read(path), f"file {path}"))
    simulated = any("simulated" in source for source, _ in given)
    flaws = [*_unknown_variables(variables, simulated)]
    # What is simulated is never switched on by a variable alone.
    names = {
        name: _setting_of(name)
        for name in variables
        if name not in _NO_SETTINGS and (simulated or not name.startswith(SIMULATION_PREFIX))
    }
    if not flaws:
        values = {place: variables[name] for name, place in names.items()}
        given.insert(len(given) - 1, (_from_environment(values), ""))
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for source, origin in given:
        for place in _leaves(source):
            came_from = origin or f"variable {_variable_of(place, names)}"
            # An axis that is given by its name alone.
            origins[f"{place}.device" if f"{place}.device" in _PLACES else place] = came_from
        merged = _merged(merged, source)
    settings = None
    try:
        settings = kind.model_validate(merged)
    except ValidationError as error:
        flaws += _in_words(error, origins)
    if flaws or settings is None:
        raise ConfigError(f"settings: {'; '.join(flaws)}")
    settings._origins = origins
    return settings


def _read(path: str | Path) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"settings file {path}: {in_words(error)}") from error


def _setting_of(variable: str) -> str:
    """Return the place of the setting that a variable stands for."""
    if variable in _SHORT:
        return _SHORT[variable]
    return variable.removeprefix(PREFIX).lower().replace("__", ".")


def _variable_of(place: str, names: Mapping[str, str]) -> str:
    """Return the variable that set a place, which may lie inside of what it set."""
    by_place = {setting: name for name, setting in names.items()}
    return next(by_place[one] for one in _around(place) if one in by_place)


def _unknown_variables(variables: Mapping[str, str], simulated: bool) -> Iterator[str]:
    """Yield a sentence for each variable with our prefix that stands for nothing."""
    long_names = [f"{PREFIX}{place.upper().replace('.', '__')}" for place in sorted(_PLACES)]
    allowed = [*_SHORT, *_NO_SETTINGS, *long_names]
    for name in variables:
        if name not in allowed:
            yield f"the variable {name} is unknown{_suggestion(name, allowed)}"
        elif name.startswith(f"{PREFIX}SIMULATED") and not simulated:
            yield f"the variable {name} has no table [simulated] in a file to go with"


def _suggestion(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _from_environment(values: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings that variables give, by place, as nested tables.

    Raises
    ------
    ConfigError
        What should be JSON is none.
    """
    named = {f"{PREFIX}{place.replace('.', '__')}": value for place, value in values.items()}
    try:
        return _EnvironmentSource(named)()
    except SettingsError as error:
        raise ConfigError(f"settings in the environment: {in_words(error)}") from error


def places(model: type[BaseModel], above: str = "") -> Iterator[str]:
    """Yield the place of each setting, those of tables included, in the order of the model."""
    for name, field in model.model_fields.items():
        yield above + name
        inner = section_of(field.annotation)
        if inner is not None:
            yield from places(inner, f"{above}{name}.")


def section_of(annotation: Any) -> type[BaseModel] | None:
    """Return the table that a field holds, whether or not it may be None; None: it is no table."""
    options = [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        options = [one for one in typing.get_args(annotation) if one is not type(None)]
    tables = [one for one in options if isinstance(one, type) and issubclass(one, BaseModel)]
    return tables[0] if len(options) == 1 and tables else None


def _leaves(values: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Yield the place of each value in nested tables; an empty table counts as one."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}"


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested tables of which those `above` count where both have a value."""
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[name] = _merged(old, value)
        elif isinstance(value, BaseModel):
            merged[name] = value.model_dump(exclude_unset=True, by_alias=True)
        else:
            merged[name] = value
    return merged


def _in_words(error: ValidationError, origins: Mapping[str, str]) -> list[str]:
    """Return one sentence for each flaw: setting, value, where it came from, what is allowed."""
    sentences = []
    for flaw in error.errors(include_url=False):
        place = ".".join(map(str, flaw["loc"]))
        inside = (one for one in origins if one.startswith(f"{place}."))
        given = next((one for one in [*_around(place), *inside] if one in origins), "")
        origin = origins.get(given, "")
        where = f" ({origin})" if origin else ""
        if flaw["type"] == "extra_forbidden":
            known = _names_beside(flaw["loc"])
            near = _suggestion(str(flaw["loc"][-1]), known)
            sentences.append(f"{place}{where} is unknown{near}")
        elif flaw["type"] == "missing":
            sentences.append(f"{place} is missing{where}")
        else:
            message = _ALLOWED.get(flaw["type"]) or flaw["msg"]
            message = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
            message = message[:1].lower() + message[1:]
            sentences.append(f"{place}{where} is {flaw['input']!r:.80}; {message}")
    return sentences


def _around(place: str) -> Iterator[str]:
    parts = place.split(".")
    return (".".join(parts[:count]) for count in range(len(parts), 0, -1))


def _names_beside(loc: tuple[int | str, ...]) -> list[str]:
    """Return the settings of the table in which an unknown key stands."""
    model: type[BaseModel] | None = Settings
    for part in loc[:-1]:
        field = None if model is None else model.model_fields.get(str(part))
        model = None if field is None else section_of(field.annotation)
    return [] if model is None else list(model.model_fields)


_ALLOWED = {"tuple_type": "a list is needed, in square brackets and with commas"}
"""What is allowed, in words of a settings file, by pydantic's name of the flaw."""
_PLACES = frozenset(places(Settings))
"""The place of each setting."""
