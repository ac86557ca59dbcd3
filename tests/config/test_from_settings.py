"""A beamline out of a settings file, whatever keeps its devices."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bluesky import RunEngine
from ophyd.sim import SynAxis, SynGauss

from xrf_sr_plans import Beamline
from xrf_sr_plans.config import AnalysisSettings, Settings
from xrf_sr_plans.devices.axes import axis_facts
from xrf_sr_plans.devices.protocols import HeldAxis
from xrf_sr_plans.devices.sim import SimBeamline, make_beamline
from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.session import start_session

NAMED = '[beamline]\nfast = "samx"\nslow = "samy"\nflyer = "xrf"\nshutter = "shutter"\n'


class Counted(SynAxis):
    """An axis that says how often it was made."""

    made = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        type(self).made += 1
        super().__init__(*args, **kwargs)


@pytest.fixture
def sim() -> SimBeamline:
    return make_beamline()


def beamline(text: str, registry: Any = None, folder: Path | None = None, **more: Any) -> Beamline:
    assert folder is not None
    file = folder / "settings.toml"
    file.write_text(text)
    return Beamline.from_settings(Settings.load(file, {}, **more), registry)


def said(text: str, registry: Any, folder: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        beamline(text, registry, folder)
    return str(refused.value)


def test_devices_are_found_in_a_namespace_in_an_object_and_in_several(
    sim: SimBeamline, tmp_path: Path
) -> None:
    names = {"samx": sim.fast, "samy": sim.slow}
    others = SimpleNamespace(xrf=sim.flyer, shutter=sim.shutter)
    for registry in (sim.devices, SimpleNamespace(**sim.devices), [names, others]):
        made = beamline(NAMED, registry, tmp_path)
        assert (made.fast, made.slow) == (sim.fast, sim.slow)
        assert (made.flyer, made.shutter) == (sim.flyer, sim.shutter)


def test_devices_are_found_in_a_registry_of_guarneri_and_bits(
    sim: SimBeamline, tmp_path: Path
) -> None:
    guarneri = pytest.importorskip("guarneri")
    registry = guarneri.Registry(auto_register=False)
    for device in sim.devices.values():
        registry.register(device)
    # An instrument of guarneri has its registry as `devices`.
    for source in (registry, SimpleNamespace(devices=registry)):
        assert beamline(NAMED, source, tmp_path).fast is sim.fast
    words = said(NAMED.replace("samx", "samz"), registry, tmp_path)
    assert "there is no 'samz' in the registry (guarneri.registry.Registry)" in words
    assert "did you mean" in words


def test_devices_are_loaded_out_of_a_happi_database_where_it_has_them(
    sim: SimBeamline, tmp_path: Path
) -> None:
    happi = pytest.importorskip("happi")
    database = tmp_path / "happi.json"
    database.write_text("{}")
    client = happi.Client(path=str(database))
    for name in ("samx", "samy"):
        client.add_item(
            happi.HappiItem(
                name=name,
                device_class="ophyd.sim.SynAxis",
                args=[],
                kwargs={"name": "{{name}}", "egu": "mm"},
            )
        )
    made = beamline(NAMED, [client, sim.devices], tmp_path)
    assert made.fast.name == "samx"
    assert made.flyer is sim.flyer
    assert axis_facts(made.fast).um_per_unit == 1000
    assert "did you mean 'samx'?" in said(NAMED.replace("samx", "samxx"), client, tmp_path)


def test_a_dotted_name_leads_to_a_part_of_a_device(sim: SimBeamline, tmp_path: Path) -> None:
    stage = SimpleNamespace(x=sim.fast, y=sim.slow)
    text = NAMED.replace("samx", "stage.x").replace("samy", "stage.y")
    registry = {**sim.devices, "stage": stage}
    assert beamline(text, registry, tmp_path).fast is sim.fast
    assert "stage has no 'z'" in said(text.replace("stage.x", "stage.z"), registry, tmp_path)


def test_devices_are_made_by_their_class(tmp_path: Path) -> None:
    text = """
        [beamline]
        fast = "samx"
        slow = { device = "samy", units = "mm" }
        safe_box_um = [[-20, 20], [-20, 20]]
        flyer = { kind = "step", detectors = ["vortex"], counts = { Fe = "vortex" } }
        [devices.samx]
        class = "ophyd.sim.SynAxis"
        egu = "um"
        [devices.samy]
        class = "ophyd.sim.SynAxis"
        [devices.vortex]
        class = "ophyd.sim.SynGauss"
        motor = { device = "samx" }
        motor_field = "samx"
        center = 0
        Imax = 1
    """
    made = beamline(text, None, tmp_path)
    assert isinstance(made.fast, SynAxis)
    assert isinstance(made.flyer._detectors[0], SynGauss)  # type: ignore[attr-defined]
    assert axis_facts(made.slow).um_per_unit == 1000


def test_all_devices_that_are_missing_are_said_at_once(sim: SimBeamline, tmp_path: Path) -> None:
    text = NAMED + '[beamline.fine]\nfast = "px"\n[[beamline.held]]\ndevice = "theta"\n'
    words = said(text.replace('"xrf"', '"xfr"'), sim.devices, tmp_path)
    assert (
        "beamline.flyer is 'xfr'; there is no 'xfr' in the namespace; did you mean 'xrf'?" in words
    )
    assert "beamline.fine.fast is 'px'" in words
    assert "beamline.fine.slow is missing" in words
    assert "beamline.held.0.device is 'theta'" in words
    assert "beamline.fast is missing" in said("[beamline]\nname = 'x'\n", None, tmp_path)
    assert "the settings describe no beamline" in said("[analysis]\n", None, tmp_path)


@pytest.mark.parametrize(
    ("made_by", "words"),
    [
        ("ophyd.EpicsMotr", "has no attribute 'EpicsMotr'"),
        ("no_such_module.Motor", "No module named 'no_such_module'"),
        ("EpicsMotor", "it must be dotted"),
        ("math.pi", "can't be called"),
        ("ophyd.sim.SynGauss", "missing"),
    ],
)
def test_a_class_that_makes_no_device_is_refused_in_words(
    sim: SimBeamline, tmp_path: Path, made_by: str, words: str
) -> None:
    text = f'{NAMED}[devices.theta]\nclass = "{made_by}"\n'
    told = said(text, sim.devices, tmp_path)
    assert "devices.theta" in told
    assert words in told


def test_a_unit_is_checked_against_the_device_and_used_where_it_gives_none(tmp_path: Path) -> None:
    silent = SynAxis(name="samx")
    mm = make_beamline(egu="mm")
    registry = {**mm.devices, "samx": silent}
    text = NAMED.replace('"samx"', '{ device = "samx", units = "mm" }')
    made = beamline(text.replace('"samy"', '{ device = "samy", units = "mm" }'), registry, tmp_path)
    assert axis_facts(made.fast).um_per_unit == 1000
    words = said(text.replace('"samy"', '{ device = "samy", units = "um" }'), registry, tmp_path)
    assert "axis 'samy' is in 'mm', and the settings say 'um'" in words
    assert "Mm" in said(text.replace('"mm"', '"Mm"'), mm.devices, tmp_path)


def test_text_in_the_place_of_an_axis_is_refused_by_its_name(sim: SimBeamline) -> None:
    with pytest.raises(ConfigError, match="fast is 'samx', which is text; give the device"):
        Beamline(fast="samx", slow=sim.slow, flyer=sim.flyer)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="axis is 'theta', which is text"):
        HeldAxis("theta")  # type: ignore[arg-type]


def test_every_fact_of_a_beamline_can_be_set(sim: SimBeamline, tmp_path: Path) -> None:
    facts = {
        "name": "bench",
        "safe_box_um": ((-5.0, 5.0), (-4.0, 4.0)),
        "reach_um": (8.0, 6.0),
        "max_rate_hz": 200.0,
        "max_points": 5000,
        "readout_ms": 1.0,
        "max_velocity_um_s": 100.0,
        "encoder_um": 0.01,
        "run_up_um": 2.0,
        "probe_fwhm_um": 0.3,
        "flux_ph_s": 1e8,
    }
    more = {"beamline": {**facts, "time_model": {"overhead_s": 2.5}}}
    made = beamline(NAMED, sim.devices, tmp_path, **more)
    assert {name: getattr(made, name) for name in facts} == facts
    assert made.time_model.overhead_s == 2.5
    own = {"fast", "slow", "flyer", "shutter", "analysis", "rescan_queue", "time_model", "fine"}
    own |= {"approvals"}
    fields = {field.name for field in dataclasses.fields(Beamline)} - own - {"held", "settings"}
    assert fields == set(facts)


def test_a_session_is_told_by_the_settings_of_its_beamline(
    sim: SimBeamline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"{NAMED}[analysis]\nthreads = 3\n[queue]\nposition = 'back'\n"
    made = beamline(text, sim.devices, tmp_path, store={"where": f"jsonl:{tmp_path / 'runs'}"})
    monkeypatch.setenv("XRF_SR_THREADS", "7")
    with start_session(None, made, in_process=True) as session:
        assert session.link.settings.threads == 3  # type: ignore[attr-defined]
        assert session.store is not None
        assert session.store.where == f"jsonl:{tmp_path / 'runs'}"
        assert session.beamline.rescan_queue is not None
    own = AnalysisSettings(threads=2)
    with start_session(None, made, settings=own, in_process=True, store="off") as session:
        assert session.link.settings.threads == 2  # type: ignore[attr-defined]
        assert session.store is None


def test_devices_of_ophyd_async_are_connected_by_the_loop_of_the_run_engine(
    tmp_path: Path,
) -> None:
    pytest.importorskip("ophyd_async.sim")
    _ = RunEngine({})
    text = f'{NAMED}[devices.samx]\nclass = "ophyd_async.sim.SimMotor"\n'
    made = beamline(text, make_beamline().devices, tmp_path)
    assert made.fast.name == "samx"
    assert axis_facts(made.fast).position_um == 0


def test_devices_that_do_not_answer_are_named(tmp_path: Path) -> None:
    text = f"{NAMED}connect_timeout_s = 0.2\n"
    text += '[devices.samx]\nclass = "ophyd.EpicsMotor"\nprefix = "no:such:m1"\n'
    words = said(text, make_beamline().devices, tmp_path)
    assert "devices.samx: TimeoutError" in words
    assert "no:such:m1" in words
