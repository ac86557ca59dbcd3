"""The page as people use it: with keys alone, on any screen, over reloads and restarts."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.browsers import CONTRASTS, LAPTOP, WALL, chromium, opened, state_of, wait_for_state
from xrf_sr_plans.approval.folder import ApprovalFolder
from xrf_sr_plans.approval.records import Decided
from xrf_sr_plans.page.process import PageProcess

pytest.importorskip("starlette")
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def process(root: Path) -> Iterator[PageProcess]:
    page = PageProcess(root / "surveys", approvals=root / "approvals", port=0)
    assert page.wait_until_open(90)
    yield page
    page.close()


def press_until(tab: Any, key: str, selector: str) -> None:
    """Press a key until what a selector names has the focus."""
    for _ in range(80):
        if tab.evaluate("(what) => document.activeElement?.matches(what)", selector):
            return
        tab.keyboard.press(key)
    raise AssertionError(f"{selector} is not reached with {key}")


def test_keys_alone_are_enough(
    browser: Any, process: PageProcess, approvals: ApprovalFolder, uid: str
):
    with opened(browser, process.address) as tab:
        tab.wait_for_selector("#regions tbody tr")
        press_until(tab, "Tab", "#elements input")
        tab.keyboard.press("ArrowRight")
        tab.wait_for_function("() => document.querySelector('figure img').alt.endsWith(' Fe')")
        press_until(tab, "Tab", "#who")
        tab.keyboard.type("Ann")
        press_until(tab, "Tab", "#regions tr:first-child input")
        tab.keyboard.press("Space")
        press_until(tab, "Shift+Tab", "#approve")
        tab.keyboard.press("Enter")
        wait_for_state(tab, 1, "approved")

        # A region of one's own: moved two steps to the right, and made one step higher.
        press_until(tab, "Tab", "#draw")
        tab.keyboard.press("Enter")
        tab.wait_for_selector("g.draft")
        before = [float(tab.input_value(f"#{name}")) for name in ("x-low", "y-high")]
        for key in ("ArrowRight", "ArrowRight", "Shift+ArrowUp"):
            tab.keyboard.press(key)
        after = [float(tab.input_value(f"#{name}")) for name in ("x-low", "y-high")]
        step = approvals.proposal(uid).fine_step_um
        assert after == pytest.approx([before[0] + 2 * step, before[1] + step])
        tab.keyboard.press("Enter")
        tab.wait_for_selector("#editor", state="hidden")
        drawn = approvals.regions(uid)[-1]
        assert drawn.drawn
        assert drawn.who == "Ann"
        assert drawn.region.x_low_um == pytest.approx(after[0])

        # It is changed by numbers, and left as it was after all.
        number = drawn.number
        press_until(tab, "Tab", f"[aria-label='Edit region {number}']")
        tab.keyboard.press("Enter")
        tab.wait_for_selector("g.draft")
        tab.keyboard.press("ArrowLeft")
        tab.keyboard.press("Escape")
        tab.wait_for_selector("#editor", state="hidden")
        assert approvals.regions(uid)[-1].region == drawn.region


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("size", [LAPTOP, WALL])
def test_everything_is_legible_and_fits_on_any_screen(
    browser: Any, process: PageProcess, scheme: str, size: tuple[int, int], tmp_path: Path
):
    with opened(browser, process.address, size, color_scheme=scheme) as tab:
        tab.wait_for_selector("#regions tbody tr")
        tab.wait_for_function(
            "() => [...document.images].length > 2 && [...document.images].every((i) => i.complete)"
        )
        tab.locator("#regions input").first.check()
        poor = [one for one in tab.evaluate(CONTRASTS) if one[0] < 4.5]
        assert poor == []
        width, height = tab.evaluate(
            "() => [document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
        )
        assert width <= size[0]
        assert height <= 1.15 * size[1]
        small = tab.evaluate(
            "() => Math.min(...[...document.querySelectorAll('body *')].filter((e) =>"
            " e.textContent.trim() && e.getClientRects().length)"
            " .map((e) => parseFloat(getComputedStyle(e).fontSize)))"
        )
        assert small >= (10 if size == LAPTOP else 18)
        tab.screenshot(path=tmp_path / f"{scheme}-{size[0]}.png")


def test_reloads_and_restarts_lose_nothing_and_decide_nothing_twice(
    browser: Any, process: PageProcess, approvals: ApprovalFolder, uid: str
):
    """Twenty reloads and five restarts, with decisions in between."""
    states = len(approvals.regions(uid))
    with opened(browser, process.address) as tab:
        tab.wait_for_selector("#regions tbody tr")
        for turn in range(20):
            tab.reload()
            tab.wait_for_selector("#regions tbody tr")
            if turn == 3:
                tab.locator("#regions tr:first-child input").check()
                tab.click("#approve")
                wait_for_state(tab, 1, "approved")
        assert state_of(tab, 1) == "approved"
        for turn in range(5):
            starts, pid = process.starts, process.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            tab.wait_for_selector("#connection.lost")
            deadline = time.monotonic() + 60
            while process.starts == starts:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            # The tab finds the new server by itself, with what was decided before.
            tab.wait_for_selector("#connection:not(.lost)")
            edges = [4.0 * turn - 8, 4.0 * turn - 5, -6.0, -3.0]
            tab.click("#draw")
            for name, edge in zip(("x-low", "x-high", "y-low", "y-high"), edges, strict=True):
                tab.fill(f"#{name}", str(edge))
            tab.click("#editor button[type=submit]")
            wait_for_state(tab, states + turn + 1, "approved")
        assert state_of(tab, 1) == "approved"
    after = approvals.regions(uid)
    assert [state.disposition for state in after].count("approved") == 6
    decisions = [one for one in approvals.events(uid) if isinstance(one, Decided)]
    assert len(decisions) == 6


def test_a_box_is_dragged_and_resized_with_the_mouse(
    browser: Any, process: PageProcess, approvals: ApprovalFolder, uid: str
):
    region = approvals.regions(uid)[0].region
    with opened(browser, process.address) as tab:
        tab.click("[aria-label='Edit region 1']")
        corner = tab.locator("figure[data-layer=enhanced] circle[data-corner=ne]")
        corner.wait_for()
        um_per_px = tab.evaluate(
            "() => 40 / document.querySelector('figure[data-layer=enhanced] svg').clientWidth"
        )
        at = corner.bounding_box()
        x, y = at["x"] + at["width"] / 2, at["y"] + at["height"] / 2
        tab.mouse.move(x, y)
        tab.mouse.down()
        tab.mouse.move(x - 20, y + 10, steps=4)
        tab.mouse.up()
        box = tab.locator("figure[data-layer=coarse] g.draft rect.box").bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        tab.mouse.move(x, y)
        tab.mouse.down()
        tab.mouse.move(x - 30, y, steps=4)
        tab.mouse.up()
        tab.click("#editor button[type=submit]")
        tab.wait_for_selector("#editor", state="hidden")
    edited = approvals.regions(uid)[0]
    assert edited.region.x_low_um == pytest.approx(region.x_low_um - 30 * um_per_px, abs=0.1)
    assert edited.region.x_high_um == pytest.approx(region.x_high_um - 50 * um_per_px, abs=0.1)
    assert edited.region.y_high_um == pytest.approx(region.y_high_um - 10 * um_per_px, abs=0.1)
    assert edited.region.y_low_um == pytest.approx(region.y_low_um, abs=0.01)
    assert edited.via == "page"
