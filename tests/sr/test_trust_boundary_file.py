"""A model whose trust boundary is not there says so in each result."""

from __future__ import annotations

import shutil

import numpy as np

from xrf_sr_plans.sr.predict import enhance
from xrf_sr_plans.sr.registry import model_path


def test_a_trust_boundary_that_is_not_there_is_told(tmp_path):
    shipped = model_path(None)
    for file in shipped.parent.glob(f"{shipped.stem}.*"):
        shutil.copy(file, tmp_path / file.name)
    counts = np.random.default_rng(0).poisson(20.0, (1, 16, 16)).astype(float)
    asked = {"elements": ["Fe"], "factor": 2, "step_um": 1.0}
    told = []
    for _ in range(2):
        enhanced = enhance(counts, **asked, model=str(tmp_path / shipped.name))
        told.append([note for note in enhanced.dataset.attrs["data_notes"] if "boundary" in note])
        (tmp_path / f"{shipped.stem}.trust.json").unlink(missing_ok=True)
    without = f"no trust boundary of model {shipped.stem}"
    assert told == [[], [f"{without}: features too faint for their size are trusted"]]
