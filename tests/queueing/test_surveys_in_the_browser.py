"""A survey of a real RE Manager, watched live, decided on and sent in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.browsers import chromium, opened, state_of, wait_for_state
from support.queue_servers import QueueServer
from xrf_sr_plans.config import QueueSettings
from xrf_sr_plans.page.process import PageProcess
from xrf_sr_plans.store.documents import documents

pytest.importorskip("starlette")
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

SURVEY = {
    "width_um": 24,
    "height_um": 24,
    "step_um": 1,
    "dwell_ms": 20,
    "find": "K",
    "x_center_um": 0,
    "y_center_um": 0,
    "rescan": "propose",
    "max_regions": 3,
    "analysis_timeout_s": 600,
}


def fine_maps(folder: Path) -> list[dict[str, Any]]:
    starts = [next(iter(documents(path)))[1] for path in folder.glob("*.jsonl")]
    return [one for one in starts if one.get("xrf_sr", {}).get("purpose") == "fine"]


@pytest.fixture(scope="module", autouse=True)
def rows_take_their_time() -> Iterator[None]:
    """Have the beamline of the RE Manager, which is started after this, fly in real time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_CLOCK", "real")
        yield


def test_a_survey_is_watched_decided_on_sent_and_flown(queue_server: QueueServer) -> None:
    client = queue_server.client
    page = PageProcess(
        queue_server.documents.parent / "surveys",
        port=0,
        queue=QueueSettings(
            control_address=queue_server.control_addr, info_address=queue_server.info_addr
        ),
    )
    item = {"item_type": "plan", "name": "coarse_survey_with_sr", "kwargs": SURVEY}
    try:
        assert page.wait_until_open(90)
        with chromium() as browser, opened(browser, page.address) as tab:
            client.item_add(item)
            client.queue_start()
            # Rows are counted, and the map grows, while it is being flown.
            growing = "({ value, max }) => value > 0 && value < max"
            tab.wait_for_function(f"() => ({growing})(document.getElementById('rows'))")
            tab.wait_for_selector("figure[data-layer=coarse] img")
            assert tab.locator("figure[data-layer=enhanced]").count() == 0
            tab.wait_for_selector("#regions tbody tr")
            tab.wait_for_selector("figure[data-layer=enhanced] img")
            queue_server.wait_until_idle(120)
            count = tab.locator("#regions tbody tr:not(.why)").count()
            assert count >= 2

            tab.fill("#who", "Ann")
            tab.click("#draw")
            tab.wait_for_selector("g.draft")
            map_box = tab.locator("figure[data-layer=enhanced] svg").bounding_box()
            x, y, side = map_box["x"], map_box["y"], map_box["width"] / 24
            tab.mouse.move(x + 2 * side, y + 2 * side)
            tab.mouse.down()
            tab.mouse.move(x + 7 * side, y + 6 * side, steps=5)
            tab.mouse.up()
            tab.click("#editor button[type=submit]")
            wait_for_state(tab, count + 1, "approved")

            tick = "#regions tbody tr:not(.why):nth-child({}) input"
            tab.check(tick.format(1))
            tab.click("#deny")
            wait_for_state(tab, 1, "denied")
            tab.check(tick.format(3))
            tab.click("#approve")
            wait_for_state(tab, 2, "approved")

            assert fine_maps(queue_server.documents) == []
            tab.click("#send")
            wait_for_state(tab, 2, "queued", "rescanned")
            # Nothing is there to be sent once more.
            assert tab.is_disabled("#send")
            client.queue_start()
            queue_server.wait_until_idle(120)
            wait_for_state(tab, 2, "rescanned")
            wait_for_state(tab, count + 1, "rescanned")
            assert state_of(tab, 1) == "denied"
    finally:
        page.close()
    flown = [one["xrf_sr"]["region"] for one in fine_maps(queue_server.documents)]
    assert len(flown) == 2
    drawn = next(one for one in flown if "drawn" in one["reason"])
    assert drawn["x_low_um"] == pytest.approx(-10, abs=0.3)
    assert drawn["x_high_um"] == pytest.approx(-5, abs=0.3)
    assert drawn["y_high_um"] == pytest.approx(10, abs=0.3)
    assert drawn["y_low_um"] == pytest.approx(6, abs=0.3)
    history = client.history_get(reload=True)["items"]
    assert [one["name"] for one in history] == ["coarse_survey_with_sr"] + ["rescan_regions"] * 2
