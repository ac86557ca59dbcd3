"""What a document names is read below configured folders only."""

from __future__ import annotations

from pathlib import Path

import pytest

from xrf_sr_plans.errors import FileFormatError
from xrf_sr_plans.maps.readers import inside_roots
from xrf_sr_plans.maps.readers.roots import ROOTS_VARIABLE


def test_files_below_a_root_are_read_and_others_refused(tmp_path: Path, monkeypatch) -> None:
    root, outside = tmp_path / "data", tmp_path / "secret.h5"
    root.mkdir()
    outside.touch()
    (root / "a.h5").touch()
    (root / "link.h5").symlink_to(outside)
    assert inside_roots(root / "a.h5", "run 1", [root]) == (root / "a.h5").resolve()
    for path in (outside, root / ".." / "secret.h5", root / "link.h5"):
        with pytest.raises(FileFormatError, match="run 1: names the file"):
            inside_roots(path, "run 1", [root])
    monkeypatch.delenv(ROOTS_VARIABLE, raising=False)
    with pytest.raises(FileFormatError, match=f"add its folder to {ROOTS_VARIABLE}"):
        inside_roots(root / "a.h5", "run 1")
    monkeypatch.setenv(ROOTS_VARIABLE, str(root))
    assert inside_roots(root / "a.h5", "run 1")
