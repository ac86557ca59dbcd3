"""`RunOptions`: what a user can say of a run that its documents don't, whichever run it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from xrf_sr_plans.maps.adapters.assets import Assets
from xrf_sr_plans.maps.adapters.channels import ChannelKeys
from xrf_sr_plans.schema import AnalysisRequest


@dataclass(frozen=True)
class RunOptions:
    """How a run of another program is read.

    Parameters
    ----------
    channels
        The data key of each element's counts, or several to be added up, by element; None: by the
        names of the data keys.
    dwell_ms
        Time at each pixel; None: as the documents say.
    i0_key, live_time_key
        Data keys of the flux monitor and of the live time in s; None: as the kind of run has them.
    fast_key, slow_key
        Data keys of the readings of the axes; None: as the kind of run has them.
    stream
        Name of the stream with the counts; None: as the kind of run has it.
    energy_kev
        Energy of the first bin of spectra and the width of a bin, in keV. Of a channel that names
        spectra without bins those around the element's line are taken then.
    um_per_unit
        Micrometers in a unit of both axes, instead of the units that the documents give.
    elements
        Where `channels` is None: elements that are wanted, of the data keys that are named after
        them, or cut out of the only spectra that the run has; empty: all that keys are named after.
    analysis
        What the analysis is to do; None: its defaults.
    assets
        Where and how arrays outside of the documents are read.
    """

    channels: Mapping[str, ChannelKeys] | None = None
    dwell_ms: float | None = None
    i0_key: str | None = None
    live_time_key: str | None = None
    fast_key: str | None = None
    slow_key: str | None = None
    stream: str | None = None
    energy_kev: tuple[float, float] | None = None
    um_per_unit: float | None = None
    elements: Sequence[str] = ()
    analysis: AnalysisRequest | None = None
    assets: Assets = field(default_factory=Assets)
