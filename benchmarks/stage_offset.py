"""How well an offset between coarse and fine stage is measured from the rescans of a survey.

    python benchmarks/stage_offset.py [--number 4] [--seed 0]

Flies surveys of simulated samples with random offsets of up to a coarse pixel along each axis that
no encoder shows, and their rescans with the fine stage. Prints for each sample and step of how many
rescans the offset could be told, how far it was from the true one (root mean square over both
axes, and the largest), how large the stated errors are, and how far off the mean of a survey is.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from bluesky import RunEngine

from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.sim import SimFineStage, make_beamline
from xrf_sr_plans.session import start_session

CASES = (("zagami", 1.0), ("zagami", 2.0), ("cells", 1.0), ("cells", 2.0))


def offsets(sample: str, step_um: float, true_um: tuple[float, float], seed: int) -> list[Any]:
    """Fly one survey and its rescans; return what the verification says of each offset."""
    found: list[Any] = []

    def take(name: str, doc: dict[str, Any]) -> None:
        if name == "start" and doc["plan_name"] == "xrf_verification":
            found.append(doc["offset"])

    run_engine = RunEngine({})
    beamline = make_beamline(
        sample, seed=seed, backlash_um=0.0, fine_stage=SimFineStage(offset_error_um=true_um)
    )
    settings = AnalysisSettings(threads=1)
    with start_session(
        run_engine, beamline, settings=settings, in_process=True, result_sinks=[take]
    ) as session:
        plan = session.plans["coarse_survey_with_sr"](
            width_um=60,
            height_um=40,
            step_um=step_um,
            dwell_ms=20,
            x_center_um=0,
            y_center_um=0,
            min_size_um=10,
            max_regions=5,
        )
        run_engine(plan)
        session.link.flush(100)
    return found


def main() -> None:
    """Print a line for each sample and step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=4, help="surveys of each sample and step")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    print("sample  step   told      rms    largest  stated  of a survey's mean (um)")
    for sample, step_um in CASES:
        rescans, errors, stated, means = 0, [], [], []
        for number in range(arguments.number):
            x, y = (float(um) for um in rng.uniform(-step_um, step_um, 2))
            found = offsets(sample, step_um, (x, y), arguments.seed + number)
            rescans += len(found)
            known = [one for one in found if not one["problem"]]
            # (rescan, axis)
            off = np.array([(one["dx_um"] - x, one["dy_um"] - y) for one in known])
            errors += off.ravel().tolist()
            stated += [one[key] for one in known for key in ("error_x_um", "error_y_um")]
            if len(known):
                means += off.mean(axis=0).tolist()
        if not errors:
            print(f"{sample:7} {step_um:3.1f}  0 of {rescans}")
            continue
        rms, mean_rms = (float(np.sqrt(np.mean(np.square(some)))) for some in (errors, means))
        print(
            f"{sample:7} {step_um:3.1f}  {len(errors) // 2:3d} of {rescans:<3d}  {rms:6.3f}"
            f"  {np.abs(errors).max():6.3f}  {np.median(stated):6.3f}  {mean_rms:6.3f}"
        )


if __name__ == "__main__":
    main()
