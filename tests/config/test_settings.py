"""One file and the environment tell a session all: what is unknown or not allowed is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from xrf_sr_plans.config import AnalysisSettings, Settings
from xrf_sr_plans.config.examples import example, names
from xrf_sr_plans.config.sources import places
from xrf_sr_plans.errors import ConfigError

BAD = """
[beamline]
fast = "samx"
probe_fhwm_um = 3
max_rate_hz = true
run_up_um = -3
safe_box_um = [[0, 1], [3, 1]]
flyer = { kind = "stp" }
[anlysis]
"""


def said(path: Path | None = None, environment: dict[str, str] | None = None) -> str:
    """Return what settings are refused with."""
    with pytest.raises(ConfigError) as refused:
        Settings.load(path, environment or {})
    return str(refused.value)


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    file = tmp_path / "bad.toml"
    file.write_text(BAD)
    return file


def test_all_that_is_wrong_with_a_file_is_said_at_once_with_what_was_meant(bad: Path) -> None:
    words = said(bad)
    assert f"beamline.probe_fhwm_um (file {bad}) is unknown; did you mean probe_fwhm_um?" in words
    assert "anlysis" in words
    assert "did you mean analysis?" in words
    assert f"beamline.run_up_um (file {bad}) is -3; it must be a finite number, 0 or more" in words
    assert "beamline.max_rate_hz" in words
    assert "is True; it must be a finite number above 0" in words
    assert "low below high" in words
    assert f"beamline.flyer (file {bad}) is" in words
    assert "kind = 'step', 'epics' or 'own-plan'" in words


def test_a_variable_with_a_slip_of_the_pen_is_refused() -> None:
    words = said(environment={"XRF_SR_MODLE": "x"})
    assert "the variable XRF_SR_MODLE is unknown; did you mean XRF_SR_MODEL?" in words
    words = said(environment={"XRF_SR_BEAMLINE__PROBE_UM": "1", "XRF_SR_STROE": "off"})
    assert "XRF_SR_BEAMLINE__PROBE_UM is unknown" in words
    assert "XRF_SR_STROE is unknown; did you mean XRF_SR_STORE?" in words
    assert "XRF_SIM_CLOK" in said(environment={"XRF_SIM_CLOK": "real"})


def test_a_variable_whose_value_is_not_allowed_is_named() -> None:
    words = said(environment={"XRF_SR_THREADS": "3x"})
    assert "analysis.threads (variable XRF_SR_THREADS) is '3x'" in words
    assert "XRF_SR_BEAMLINE__SAFE_BOX_UM" in said(
        environment={"XRF_SR_BEAMLINE__SAFE_BOX_UM": "[[0, 1], [2"}
    )
    command = said(environment={"XRF_SR_WORKER_COMMAND": "ssh gpu1"})
    assert "is 'ssh gpu1'; a list is needed, in square brackets" in command


def test_keywords_override_variables_and_variables_the_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[analysis]\nthreads = 2\nnice = 3\n[beamline.time_model]\noverhead_s = 1.5\n")
    environment = {
        "XRF_SR_SETTINGS": str(file),
        "XRF_SR_THREADS": "4",
        "XRF_SR_BEAMLINE__TIME_MODEL__DWELL_SCALE": "1.3",
        "XRF_SR_STORE": "off",
    }
    settings = Settings.load(None, environment, analysis={"device": "cpu"})
    assert (settings.analysis.threads, settings.analysis.nice) == (4, 3)
    assert settings.beamline.time_model is not None
    assert settings.beamline.time_model.overhead_s == 1.5
    assert settings.beamline.time_model.dwell_scale == 1.3
    assert settings.origin("analysis.threads") == "variable XRF_SR_THREADS"
    assert settings.origin("analysis.nice") == f"file {file}"
    assert settings.origin("analysis.device") == "call"
    assert settings.origin("analysis.model") == "default"
    assert settings.origin("store.where") == "variable XRF_SR_STORE"
    assert settings.origin("beamline.time_model.dwell_scale").endswith("__DWELL_SCALE")


def test_a_variable_in_json_sets_what_has_several_numbers() -> None:
    environment = {"XRF_SR_BEAMLINE__SAFE_BOX_UM": "[[0, 1], [2, 3]]"}
    assert Settings.load(None, environment).beamline.safe_box_um == ((0, 1), (2, 3))


def test_the_short_names_of_page_and_approvals_are_settings() -> None:
    environment = {"XRF_SR_PAGE": "on", "XRF_SR_PAGE_PORT": "0", "XRF_SR_APPROVALS": "off"}
    settings = Settings.load(None, environment)
    assert (settings.page.serve, settings.page.port) == (True, 0)
    assert settings.approvals.folder == "off"
    assert "page.port (variable XRF_SR_PAGE_PORT)" in said(
        environment={"XRF_SR_PAGE_PORT": "70000"}
    )
    assert "page.live (variable XRF_SR_LIVE)" in said(environment={"XRF_SR_LIVE": "perhaps"})


def test_variables_alone_never_make_a_beamline_a_simulated_one() -> None:
    assert Settings.load(None, {"XRF_SIM_CLOCK": "5"}).simulated is None
    words = said(environment={"XRF_SR_SIMULATED__CLOCK": "5"})
    assert "XRF_SR_SIMULATED__CLOCK has no table [simulated]" in words
    simulated = Settings.load(example("simulated"), {"XRF_SIM_CLOCK": "5"}).simulated
    assert simulated is not None
    assert simulated.clock in ("5", 5.0)


def test_constructing_settings_reads_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XRF_SR_DEVICE", "cuda:7")
    assert Settings() == Settings.load(None, {})
    assert Settings().analysis == AnalysisSettings()


@pytest.mark.parametrize("text", ["[analysis\n", "\xff", None])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "settings.toml"
    if text is not None:
        file.write_bytes(text.encode("latin-1"))
    assert f"settings file {file}: " in said(file)


def test_a_path_may_begin_at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert AnalysisSettings(pair_dir="~/pairs").pair_dir == str(tmp_path / "pairs")


@pytest.mark.parametrize("name", names())
def test_the_examples_are_read_without_a_word(name: str) -> None:
    settings = Settings.load(example(name), {})
    assert settings.beamline.name != "beamline"


def test_an_example_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"no example 'sxr'; one of 2-id, bionanoprobe"):
        example("sxr")


def test_every_setting_is_explained() -> None:
    for place in places(Settings):
        *tables, name = place.split(".")
        model = Settings
        for table in tables:
            annotation = model.model_fields[table].annotation
            model = next(
                one
                for one in [annotation, *getattr(annotation, "__args__", ())]
                if hasattr(one, "model_fields")
            )
        assert model.model_fields[name].description, place
