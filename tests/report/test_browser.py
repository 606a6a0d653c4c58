"""The page in a real browser: both themes, a telephone, and paper."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import packages
from tests.packages import CHROMIUM

playwright = pytest.importorskip("playwright.sync_api", reason=packages.reason("browser", ["'samdeploy[dev]'"], "pip"))
WHY_NOT = packages.lacking("browser")
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))

WIDE, TELEPHONE = 1280, 360


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        # As root, which CI containers are, chromium refuses its sandbox; the page is ours.
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(params=["light", "dark"])
def theme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def open_page(browser: Any, file: Path, width: int, theme: str = "light") -> tuple[Any, list[str], list[str]]:
    """The page, what its console says, and what it asked for."""
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=theme)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    return page, said, asked


def test_nothing_is_asked_for_and_nothing_goes_wrong(browser: Any, written: Path, theme: str) -> None:
    page, said, asked = open_page(browser, written / "report.html", WIDE, theme)
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert asked[0].startswith("file:") and sum(url.startswith("file:") for url in asked) == 1
    assert page.locator("section").count() == 13
    assert all(section.is_visible() for section in page.locator("section").all())
    # Every image was decoded.
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    page.close()


@pytest.mark.parametrize("width", [TELEPHONE, WIDE])
def test_only_tables_scroll_sideways(browser: Any, written: Path, width: int) -> None:
    page, _, _ = open_page(browser, written / "report.html", width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.querySelectorAll('.wide')].some(b => b.scrollWidth > b.clientWidth)") is (
        width == TELEPHONE
    )
    page.close()


LUMINANCE = """colour => {
  const parts = colour.match(/[\\d.]+/g).slice(0, 3).map(Number).map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
}"""


def test_both_themes_can_be_read(browser: Any, written: Path, theme: str) -> None:
    """Contrast of at least 4.5 (WCAG 2.2, 1.4.3), of text in pages and plots alike."""
    page, _, _ = open_page(browser, written / "report.html", WIDE, theme)
    background = page.evaluate(f"({LUMINANCE})(getComputedStyle(document.body).backgroundColor)")
    assert background > 0.9 if theme == "light" else background < 0.05
    for selector, key in (
        ("body", "color"), (".soft", "color"), (".kicker", "color"), ("nav a", "color"), (".badge.good", "color"),
        (".badge.bad", "color"), (".badge.open", "color"), (".badge.none", "color"), (".plot text.name", "fill"),
        (".plot text.soft", "fill"),
    ):  # fmt: skip
        ink = page.evaluate(f"({LUMINANCE})(getComputedStyle(document.querySelector({selector!r})).{key})")
        contrast = (max(ink, background) + 0.05) / (min(ink, background) + 0.05)
        assert contrast >= 4.5, f"{selector}: {contrast:.2f}"
    page.close()


def test_paper_is_light_and_everything_is_open(browser: Any, written: Path) -> None:
    page, _, _ = open_page(browser, written / "report.html", 794, "dark")
    shown = "[...document.querySelectorAll('details > *:not(summary)')].filter(e => e.checkVisibility()).length"
    assert page.evaluate(shown) == 0
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(f"({LUMINANCE})(getComputedStyle(document.body).backgroundColor)") == 1
    assert page.evaluate(shown) >= 4
    assert page.evaluate("document.querySelector('details table').getBoundingClientRect().height") > 50
    assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert page.evaluate("document.documentElement.scrollWidth") <= 794
    page.close()
