from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.stored_runs import Document, fly


@pytest.fixture
def flown() -> list[Document]:
    """A run with a short row and a missing row."""
    return fly()


@pytest.fixture
def reflown() -> list[Document]:
    """The same, and row 2 twice, with one seq_num: paused between collect and checkpoint."""
    return fly(pause_after=2)


@pytest.fixture(scope="session")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An embedded Tiled catalog."""
    pytest.importorskip("tiled.server.app")
    pytest.importorskip("bluesky_tiled_plugins")
    from xrf_sr_plans.store.tiled import embedded_catalog

    with embedded_catalog(tmp_path_factory.mktemp("catalog")) as client:
        yield client
