"""A `Beamline` out of its settings: devices looked up by name or made, and all facts about them."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from xrf_sr_plans.config import Settings
from xrf_sr_plans.config.beamline import (
    AxisSettings,
    BeamlineSettings,
    DeviceSettings,
    FineStageSettings,
    StageSettings,
)
from xrf_sr_plans.config.flyers import (
    EpicsFlyerSettings,
    OwnPlanSettings,
    StepFlyerSettings,
    StopSettings,
)
from xrf_sr_plans.config.settings import SimulatedSettings
from xrf_sr_plans.devices.axes import declare_unit
from xrf_sr_plans.devices.protocols import Beamline, FineStage, HeldAxis
from xrf_sr_plans.devices.registry import MadeDevices, Registry
from xrf_sr_plans.devices.row_time import RowTimeModel
from xrf_sr_plans.errors import ConfigError, XrfSrError, in_words

_Stage = Beamline | FineStage
_STAGE_FIELDS = ("safe_box_um", "reach_um", "max_velocity_um_s", "encoder_um", "run_up_um")
_BEAMLINE_FIELDS = ("name", "max_rate_hz", "max_points", "readout_ms", "probe_fwhm_um", "flux_ph_s")
_FINE_FIELDS = ("center_um", "sign", "offset_um", "coarse_error_um")
_FINE_FIELDS = (*_FINE_FIELDS, "max_rate_hz", "max_points", "readout_ms")


class BeamlineMaker:
    """Makes a beamline; what is wrong with its settings is collected, and refused at once.

    Parameters
    ----------
    settings
        The settings.
    registry
        Where devices are looked up that the settings don't make.
    """

    def __init__(self, settings: Settings, registry: Any = None) -> None:
        self.settings = settings
        self.flaws: list[str] = []
        self.made = MadeDevices()
        """Devices that were made here, by name."""
        self._registry = Registry(self.made, *_sources(registry))

    def beamline(self) -> Beamline:
        """Return the beamline.

        Raises
        ------
        ConfigError
            A device is missing, can't be made or is not of its kind, or a value is not allowed.
            The message lists all of it.
        """
        wanted = self.settings.beamline
        if wanted == BeamlineSettings() and self.settings.simulated is None:
            raise ConfigError(
                "the settings describe no beamline: give the path of a file with a table"
                " [beamline], or name it in the variable XRF_SR_SETTINGS"
            )
        simulated = self._simulated()
        self.make_devices()
        values: dict[str, Any] = self._stage(wanted, "beamline", simulated)
        values |= _given(wanted, _BEAMLINE_FIELDS, simulated)
        if wanted.shutter is not None:
            values["shutter"] = self.find(wanted.shutter, "beamline.shutter")
        if wanted.fine is not None:
            values["fine"] = self._fine(wanted.fine, simulated)
        held = [
            (self.find(one.device, f"beamline.held.{index}.device"), one.tolerance)
            for index, one in enumerate(wanted.held)
        ]
        self._refuse()
        values["held"] = tuple(HeldAxis(axis, tolerance) for axis, tolerance in held)
        if simulated is not None:
            return replace(simulated, **values, settings=self.settings)
        return Beamline(**values, settings=self.settings)

    def make_devices(self) -> None:
        """Make the devices of the table ``[devices]``, and connect them."""
        for name, device in self.settings.devices.items():
            what = f"devices.{name}"
            made = self._tried(what, lambda device=device, name=name: self._made(name, device))
            if made is not None:
                self.made[name] = made
        timeout_s = self.settings.beamline.connect_timeout_s
        for name in self.settings.devices:
            if name in self.made:
                device = self.made[name]
                self._tried(f"devices.{name}", lambda device=device: connect(device, timeout_s))

    def find(self, name: str, what: str) -> Any:
        """Return what has a name; None where there is none, which is noted as a flaw."""
        try:
            return self._registry.find(name, what)
        except ConfigError as error:
            self.flaws.append(str(error))
            return None

    def _refuse(self) -> None:
        if self.flaws:
            raise ConfigError(f"settings: {'; '.join(dict.fromkeys(self.flaws))}")

    def _tried(self, what: str, make: Callable[[], Any]) -> Any:
        """Return what a function makes; None where it fails, which is noted as a flaw."""
        try:
            return make()
        except XrfSrError as error:
            self.flaws.append(f"{what}: {error}")
        except Exception as error:  # noqa: BLE001 - classes of others raise whatever they like
            self.flaws.append(f"{what}: {in_words(error)}")
        return None

    def _simulated(self) -> Beamline | None:
        """Return the simulated beamline, whose devices are found by their names from now on."""
        simulated = self.settings.simulated
        if simulated is None:
            return None
        sim: Any = self._tried("simulated", lambda: _simulated_beamline(simulated))
        self._refuse()
        devices = [sim.fast, sim.slow, sim.flyer, sim.shutter, sim.i0, sim.detector]
        self.made |= {device.name: device for device in devices}
        if sim.fine is not None:
            self.made |= {axis.name: axis for axis in (sim.fine.fast, sim.fine.slow)}
            self.made["fine_flyer"] = sim.fine.flyer
        return sim

    def _made(self, name: str, device: DeviceSettings) -> Any:
        """Return a device of the table ``[devices]``, not yet connected."""
        arguments = dict(device.arguments)
        for key, value in arguments.items():
            if isinstance(value, Mapping) and set(value) == {"device"}:
                arguments[key] = self._registry.find(value["device"], f"devices.{name}.{key}")
        return imported(device.made_by, f"devices.{name}.class")(**{"name": name, **arguments})

    def _stage(self, wanted: StageSettings, where: str, default: _Stage | None) -> dict[str, Any]:
        """Return the fields that a beamline and a fine stage have in common."""
        values: dict[str, Any] = _given(wanted, _STAGE_FIELDS, default)
        for role in ("fast", "slow"):
            values[role] = self._axis(getattr(wanted, role), f"{where}.{role}", default, role)
        flyer, what = wanted.flyer, f"{where}.flyer"
        if flyer is None and default is None:
            self.flaws.append(f"{what} is missing; it must be a device's name or a table")
        elif flyer is None:
            assert default is not None
            values["flyer"] = default.flyer
        elif isinstance(flyer, str):
            values["flyer"] = self.find(flyer, what)
        else:
            axes = values["fast"], values["slow"]
            values["flyer"] = self._tried(what, lambda: self._flyer(flyer, what, axes))
        if wanted.time_model is not None:
            values["time_model"] = RowTimeModel(**wanted.time_model.model_dump())
        return values

    def _axis(
        self,
        wanted: AxisSettings | None,
        what: str,
        default: _Stage | None,
        role: str,
    ) -> Any:
        if wanted is None:
            if default is None:
                self.flaws.append(f"{what} is missing; it must be the name of a positioner")
                return None
            return getattr(default, role)
        axis = self.find(wanted.device, what)
        if axis is not None and wanted.units is not None:
            units = wanted.units
            self._tried(f"{what}.units", lambda: declare_unit(axis, units))
        return axis

    def _fine(self, wanted: FineStageSettings, simulated: Beamline | None) -> FineStage | None:
        default = None if simulated is None else simulated.fine
        values = self._stage(wanted, "beamline.fine", default)
        values |= _given(wanted, _FINE_FIELDS, default)
        if values.get("reach_um") is None and default is None:
            self.flaws.append("beamline.fine.reach_um is missing; it must be [width, height]")
        if self.flaws:
            return None
        if default is not None:
            return replace(default, **values)
        return self._tried("beamline.fine", lambda: FineStage(**values))

    def _flyer(self, wanted: Any, what: str, axes: tuple[Any, Any]) -> Any:
        """Return a flyer of a kind of ours; None where what it needs is missing."""
        fast, slow = axes
        if isinstance(wanted, OwnPlanSettings):
            return self._own_plan_flyer(wanted, what)
        if fast is None or slow is None:
            return None
        if isinstance(wanted, EpicsFlyerSettings):
            from xrf_sr_plans.devices.epics_flyer import EpicsRowFlyer
            from xrf_sr_plans.devices.row_pvs import RowPVs

            pvs = RowPVs(**wanted.pvs.model_dump())
            flyer = EpicsRowFlyer(
                pvs, name=wanted.name, fast=fast, slow=slow, timeout_s=wanted.timeout_s
            )
            connect(flyer, self.settings.beamline.connect_timeout_s)
            return flyer
        assert isinstance(wanted, StepFlyerSettings)
        from xrf_sr_plans.devices.step_flyer import StepFlyer

        detectors = [self.find(one, f"{what}.detectors") for one in wanted.detectors]
        exposure = [self.find(one, f"{what}.exposure") for one in wanted.exposure]
        if None in detectors or None in exposure:
            return None
        return StepFlyer(
            wanted.name,
            detectors,
            fast,
            slow,
            counts=wanted.counts,
            i0_key=wanted.i0_key,
            exposure=exposure,
            live_time_key=wanted.live_time_key,
            timeout_s=wanted.timeout_s,
        )

    def _own_plan_flyer(self, wanted: OwnPlanSettings, what: str) -> Any:
        from xrf_sr_plans.devices.own_plan_flyer import OwnPlanFlyer
        from xrf_sr_plans.devices.scan_file import ScanFile
        from xrf_sr_plans.maps.files import ReadOptions

        file, before = wanted.file, len(self.flaws)
        name = None if file.name is None else self.find(file.name, f"{what}.file.name")
        busy = None if wanted.busy is None else self.find(wanted.busy, f"{what}.busy")
        stop = self._stop(wanted.stop, f"{what}.stop")
        plan = self._plan(wanted.plan, f"{what}.plan")
        if len(self.flaws) > before:
            return None
        elements = wanted.elements
        return OwnPlanFlyer(
            plan,
            ScanFile(file.folder, file.pattern, name=name, settle_s=file.settle_s),
            name=wanted.name,
            elements=dict(elements) if isinstance(elements, Mapping) else list(elements),
            reader=wanted.reader,
            options=ReadOptions(axis_unit=wanted.axis_unit),
            units=wanted.units,
            stop=stop,
            busy=busy,
            bad_columns=wanted.bad_columns,
            fast=wanted.fast,
            squares_only=wanted.squares_only,
            timeout_s=wanted.timeout_s,
        )

    def _plan(self, name: str, what: str) -> Any:
        """Return a plan that is in the registry or, by its dotted name, can be imported."""
        try:
            return self._registry.find(name, what)
        except ConfigError as error:
            if "." in name:
                return self._tried(what, lambda: imported(name, what))
            self.flaws.append(str(error))
            return None

    def _stop(self, wanted: str | StopSettings | None, what: str) -> Callable[[], object] | None:
        if wanted is None:
            return None
        if isinstance(wanted, str):
            return self.find(wanted, what)
        signal, value = self.find(wanted.signal, f"{what}.signal"), wanted.value
        return lambda: signal.put(value)


def imported(name: str, what: str) -> Any:
    """Return a class or a function by its dotted name.

    Raises
    ------
    ConfigError
        There is none, or its module can't be imported.
    """
    module, _, attribute = name.rpartition(".")
    if not module:
        raise ConfigError(f"{what} is {name!r}; it must be dotted, such as 'ophyd.EpicsMotor'")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise ConfigError(f"{what} is {name!r}; {in_words(error)}") from error
    if not callable(found):
        raise ConfigError(f"{what} is {name!r}, which is {found!r:.80} and can't be called")
    return found


def connect(device: Any, timeout_s: float) -> None:
    """Connect a device of ophyd or ophyd-async, and wait until it is.

    Raises
    ------
    ConfigError
        It can't be connected here.
    """
    wait = getattr(device, "wait_for_connection", None)
    if callable(wait):
        wait(timeout=timeout_s)
        return
    begin = getattr(device, "connect", None)
    if inspect.iscoroutinefunction(inspect.unwrap(begin)) if callable(begin) else False:
        from bluesky.run_engine import call_in_bluesky_event_loop, get_bluesky_event_loop

        loop = get_bluesky_event_loop()
        if loop is None or not loop.is_running():
            raise ConfigError("it is connected by the RunEngine's loop; make the RunEngine first")
        call_in_bluesky_event_loop(device.connect(timeout=timeout_s), timeout=2 * timeout_s)


def _sources(registry: Any) -> list[Any]:
    return list(registry) if isinstance(registry, (list, tuple)) else [registry]


def _given(wanted: Any, names: tuple[str, ...], default: Any) -> dict[str, Any]:
    """Return fields by name; where there are defaults, only those that were set."""
    were_set = wanted.model_fields_set
    chosen = names if default is None else [name for name in names if name in were_set]
    return {name: getattr(wanted, name) for name in chosen}


def _simulated_beamline(settings: SimulatedSettings) -> Beamline:
    from xrf_sr_plans.devices.sim import SimFineStage, make_beamline

    values = {name: getattr(settings, name) for name in type(settings).model_fields}
    fine = values.pop("fine_stage")
    if fine is not None:
        values["fine_stage"] = SimFineStage(
            **{name: getattr(fine, name) for name in type(fine).model_fields}
        )
    return make_beamline(**values)
