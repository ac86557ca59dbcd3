"""What a shell offers where an option takes one of several names; nothing heavy is loaded."""

from __future__ import annotations


def model_names() -> list[str]:
    """Return the names of the models that ship."""
    from xrf_sr_plans.sr.registry import WEIGHTS

    return sorted(file.stem for file in WEIGHTS.glob("*.safetensors"))


def format_names() -> list[str]:
    """Return the layouts of maps that are written."""
    from xrf_sr_plans.store.exports.formats import FORMATS

    return sorted(FORMATS)


def sampling_names() -> list[str]:
    """Return what a pixel may average over."""
    from xrf_sr_plans.measurement import SAMPLINGS

    return list(SAMPLINGS)


def example_names() -> list[str]:
    """Return the settings files that ship."""
    from xrf_sr_plans.config.examples import names

    return names()
