"""`xrf-sr config`: every value and where it came from, and what answers before anything moves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from xrf_sr_plans.checkup.checkup import check_settings
from xrf_sr_plans.cli import app
from xrf_sr_plans.config import Settings
from xrf_sr_plans.config.examples import example, names
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.store.pairs import PairStore

RUNNER = CliRunner()
NAMED = '[beamline]\nfast = "samx"\nslow = "samy"\nflyer = "xrf"\n'


def states(text: str, registry: object, folder: Path) -> dict[str, tuple[str, str]]:
    """Return what a check of settings finds, by part."""
    file = folder / "settings.toml"
    file.write_text(text)
    report = check_settings(Settings.load(file, {}), registry)
    return {one.part: (one.state, one.text) for one in report}


def test_every_value_is_shown_with_where_it_came_from(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(f"{NAMED}safe_box_um = [[-5, 5], [-4, 4]]\n")
    environment = {"XRF_SR_THREADS": "3", "XRF_SR_SETTINGS": str(file)}
    done = RUNNER.invoke(app, ["config", "show", "--json"], env=environment)
    assert done.exit_code == 0, done.output
    shown = json.loads(done.output)
    assert shown["analysis.threads"] == {"value": 3, "from": "variable XRF_SR_THREADS"}
    assert shown["beamline.fast.device"] == {"value": "samx", "from": f"file {file}"}
    assert shown["beamline.fast.units"] == {"value": None, "from": "default"}
    assert shown["beamline.safe_box_um"]["value"] == [[-5, 5], [-4, 4]]
    assert shown["log.level"] == {"value": "INFO", "from": "default"}
    table = RUNNER.invoke(app, ["config", "show", str(file), "--changed"], env=environment).output
    assert "log.level" not in table
    assert any(
        line.split() == ["analysis.threads", "3", "variable", "XRF_SR_THREADS"]
        for line in table.splitlines()
    )


def test_what_is_unknown_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XRF_SR_MODLE", "x")
    done = RUNNER.invoke(app, ["config", "show"])
    assert isinstance(done.exception, ConfigError)
    assert "XRF_SR_MODLE is unknown; did you mean XRF_SR_MODEL?" in str(done.exception)


def test_a_check_of_the_simulated_beamline_moves_nothing_and_finds_all_well() -> None:
    environment = {"XRF_SR_STORE": "off", "XRF_SIM_CLOCK": "instant"}
    done = RUNNER.invoke(app, ["config", "check", str(example("simulated"))], env=environment)
    assert done.exit_code == 0, done.output
    assert "samx is at" in done.output
    assert " um, and may go from -110 to 110" in done.output
    assert "xrf counts Si, Mg, K, Fe, Ca" in done.output
    assert "store.where" in done.output


def test_devices_are_looked_up_where_the_command_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_instrument.py").write_text(
        "from xrf_sr_plans.devices.sim import make_beamline\nregistry = make_beamline().devices\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "settings.toml"
    file.write_text(NAMED)
    told = ["config", "check", str(file), "--registry"]
    done = RUNNER.invoke(app, [*told, "my_instrument:registry"])
    assert done.exit_code == 0, done.output
    done = RUNNER.invoke(app, ["config", "check", str(file)])
    assert done.exit_code == 1
    assert "fails  beamline" in done.output
    assert "there is no 'samx' in the table [devices]" in done.output
    done = RUNNER.invoke(app, [*told, "my_instrumnt"])
    assert "--registry is 'my_instrumnt'; ModuleNotFoundError" in str(done.exception)


def test_what_does_not_fit_together_is_said(tmp_path: Path) -> None:
    sim = make_beamline(limits_um=((-20, 20), (0, 0)), position_um=(10, 0))
    text = f'{NAMED}max_velocity_um_s = 9000\n[[beamline.held]]\ndevice = "xrf"\n'
    found = states(text, sim.devices, tmp_path)
    assert found["beamline.slow"][0] == "fails"
    assert "knows no limits" in found["beamline.slow"][1]
    assert found["beamline.fast"][0] == "fails"
    assert "max_velocity_um_s is 9000, and samx takes at most 2000" in found["beamline.fast"][1]
    assert "xrf doesn't say where it is" in found["beamline.held.0"][1]
    assert found["beamline.shutter"][0] == "note"
    assert found["beamline.flux_ph_s"][0] == "note"


def test_a_device_that_does_not_answer_is_named(tmp_path: Path) -> None:
    sim = make_beamline()
    device = sim.fast

    class Gone(type(device)):  # type: ignore[misc]
        connected = False

    device.__class__ = Gone
    found = states(NAMED, sim.devices, tmp_path)
    assert found["beamline.fast"] == ("fails", "samx is not connected")


def test_services_that_are_not_there_are_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    text = f"""{NAMED}
        [analysis]
        model = "no-such"
        device = "cuda:99"
        pair_dir = "{tmp_path / "taken" / "pairs"}"
        [store]
        where = "ftp://nowhere"
        [queue]
        control_address = "tcp://127.0.0.1:1"
        request_timeout_s = 0.2
        [log]
        file = "{tmp_path / "taken" / "log"}"
    """
    found = states(text, make_beamline().devices, tmp_path)
    for part in ("analysis.model", "analysis.device", "analysis.pair_dir", "store.where"):
        assert found[part][0] == "fails", part
    assert "no-such" in found["analysis.model"][1]
    assert found["log.file"][0] == "fails"
    assert found["queue"][0] == "note"
    assert "no queue server at tcp://127.0.0.1:1" in found["queue"][1]


def test_the_pairs_of_a_store_are_counted_and_an_old_folder_is_told(tmp_path: Path) -> None:
    text = f"""{NAMED}
        [analysis]
        pair_dir = "{tmp_path / "pairs"}"
    """
    store, grid = PairStore(tmp_path / "pairs"), ScanGrid.from_start_stop(0, 3, 4, 0, 3, 4)
    for position, one in enumerate((grid, grid.refined(2))):
        maps = ElementalMaps.from_arrays(np.ones((1, *one.shape)), one, ["Fe"])
        store.save_map("a", position, 2 - position, maps)
    store.finish("a", {}, problem="too small")
    state, said = states(text, make_beamline().devices, tmp_path)["analysis.pair_dir"]
    assert (state, said) == (
        "ok",
        f"{tmp_path / 'pairs'}; 1 pairs, 0 of them can be learnt from",
    )
    (tmp_path / "pairs" / "log.jsonl").unlink()
    (tmp_path / "pairs" / "a").mkdir()
    (tmp_path / "pairs" / "a" / "pair.json").write_text("{}")
    state, said = states(text, make_beamline().devices, tmp_path)["analysis.pair_dir"]
    assert state == "fails"
    assert "xrf-sr pairs convert" in said


def test_an_example_is_written_to_begin_with_and_never_over_another(tmp_path: Path) -> None:
    out = tmp_path / "xrf-sr.toml"
    for name in names():
        assert RUNNER.invoke(app, ["config", "example", name]).output == example(name).read_text()
    assert RUNNER.invoke(app, ["config", "example", "srx", "--out", str(out)]).exit_code == 0
    assert out.read_text() == example("srx").read_text()
    done = RUNNER.invoke(app, ["config", "example", "srx", "--out", str(out)])
    assert "which is there already" in str(done.exception)
