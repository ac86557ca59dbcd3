"""A real browser for the page's tests: the Chromium of the system, without a screen."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

LAPTOP, WALL = (1366, 768), (3840, 2160)
WAIT_MS = 60_000
"""How long something is waited for on a busy machine."""


@contextmanager
def chromium() -> Iterator[Any]:
    """Yield a Chromium, or skip the test where there is none."""
    playwright = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("there is no chromium (apt-get install chromium)")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Any, address: str, size: tuple[int, int] = LAPTOP, **how: Any) -> Iterator[Any]:
    """Yield a tab with the page, in which no script has failed at the end."""
    width, height = size
    context = browser.new_context(viewport={"width": width, "height": height}, **how)
    tab = context.new_page()
    tab.set_default_timeout(WAIT_MS)
    errors: list[str] = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(address)
    try:
        yield tab
        assert errors == []
    finally:
        context.close()


def state_of(tab: Any, number: int) -> str:
    """Return the state of a region in the table."""
    line = tab.locator(f"#regions tbody tr:not(.why):nth-child({2 * number - 1})")
    return line.locator("td").nth(6).inner_text()


def wait_for_state(tab: Any, number: int, *states: str) -> None:
    """Wait until a region has one of these states."""
    tab.wait_for_function(
        """([number, states]) => states.includes(document.querySelectorAll(
            '#regions tbody tr:not(.why)')[number - 1]?.cells[6].textContent)""",
        arg=[number, list(states)],
    )


CONTRASTS = """() => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const channel = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const color = parse(getComputedStyle(one).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll('body *:not(svg *):not(option)')) {
    const words = [...element.childNodes].filter((node) => node.nodeType === 3);
    const said = words.some((node) => node.textContent.trim());
    if ((!said && element.tagName !== 'INPUT') || !element.getClientRects().length) continue;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    found.push([ratio, element.tagName, element.id, element.textContent.slice(0, 40)]);
  }
  return found;
}"""
"""JavaScript that returns the contrast of every text on the page with what is behind it."""
