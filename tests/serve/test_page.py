"""The page at /, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from samdeploy.bundle import Bundle
from tests.packages import CHROMIUM
from tests.serve.server import Served, serving

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
KEY = "a key of 16 and more characters"
SIZE = "(id) => [document.getElementById(id).naturalWidth, document.getElementById(id).naturalHeight]"

# The first answer from now on comes after the second; `answered` waits for both.
SLOWED = """() => {
    const real = window.fetch;
    let asked = 0, second, both;
    const order = new Promise((resolve) => { second = resolve; });
    window.answered = new Promise((resolve) => { both = resolve; });
    window.fetch = async (...request) => {
        const isFirst = ++asked === 1;
        const answer = await real(...request);
        if (isFirst) { await order; setTimeout(both, 200); } else setTimeout(second, 200);
        return answer;
    };
}"""


@pytest.fixture(scope="module")
def served(
    digits_bundle: Bundle, cam_bundle: Bundle, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    key = tmp_path_factory.mktemp("key") / "key"
    key.write_text(KEY)
    places = (f"digits={digits_bundle.root}", f"maps={cam_bundle.root}")
    with serving(environment, *places, "--api-key-file", key) as server:
        yield server


@contextmanager
def opened(served: Served) -> Iterator[tuple[Any, list[str]]]:
    """The page, with its key and the model with maps, on a dark telephone; and the addresses that it asks."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install 'samdeploy[dev]'")
    said: list[str] = []
    asked: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 360, "height": 800}, color_scheme="dark")
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"http://127.0.0.1:{served.port}")
        page.get_by_label("This server asks for a key").wait_for()
        assert page.locator("#problem").is_hidden()
        page.get_by_label("This server asks for a key").fill(KEY)
        page.keyboard.press("Enter")
        page.locator("#model").select_option("1")
        page.get_by_text("maps is ready").wait_for()
        yield page, asked
        browser.close()
    assert not said


def test_an_image_gets_classes_and_a_map(served: Served, cam_bundle: Bundle, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    Image.fromarray(cam_bundle.golden()[0][0]).save(photo)
    (tmp_path / "text.png").write_text("no image")
    with opened(served) as (page, asked):
        assert "sam-resnet18" in page.locator("#facts").inner_text()
        page.locator("#file").set_input_files(photo)
        page.get_by_alt_text("map of where the network sees").wait_for()
        buttons = page.locator("#classes button")
        assert buttons.count() == 5
        assert buttons.nth(0).get_attribute("aria-pressed") == "true"
        assert page.locator("#verdict strong").inner_text() == buttons.nth(0).locator("span").nth(0).inner_text()
        assert "queue and engine" in page.locator("#times").inner_text()
        width, height = page.evaluate(SIZE, "map")
        assert width * 96 == height * 64
        # The keyboard alone: the second class's map, fainter.
        buttons.nth(1).focus()
        page.keyboard.press("Enter")
        page.wait_for_function(
            "document.querySelectorAll('#classes button')[1].getAttribute('aria-pressed') === 'true'"
        )
        # A map that comes after that of a class chosen later is not shown.
        page.evaluate(SLOWED)
        buttons.nth(3).click()
        buttons.nth(4).click()
        page.evaluate("window.answered")
        last = buttons.nth(4).locator("span").nth(0).inner_text()
        assert page.get_attribute("#map", "alt") == f"map of where the network sees {last}"
        page.locator("#opacity").focus()
        page.keyboard.press("Home")
        assert page.evaluate("document.getElementById('map').style.opacity") == "0"
        assert page.evaluate("document.documentElement.scrollWidth") == 360  # nothing to scroll sideways
        page.locator("#file").set_input_files(tmp_path / "text.png")
        page.get_by_text("not an image that samdeploy reads").wait_for()
        page.locator("#shown").wait_for(state="hidden")
    assert {url.split("/")[2] for url in asked if not url.startswith(("blob:", "data:"))} == {
        f"127.0.0.1:{served.port}"
    }


def test_what_the_browser_cannot_decode_is_shown_by_the_server(
    served: Served, cam_bundle: Bundle, tmp_path: Path
) -> None:
    photo = tmp_path / "photo.tif"
    Image.fromarray(cam_bundle.golden()[0][0]).save(photo)
    with opened(served) as (page, _):
        page.locator("#file").set_input_files(photo)
        page.get_by_text("photo.tif (as the server decodes it)").wait_for()
        page.get_by_alt_text("map of where the network sees").wait_for()
        page.wait_for_function("document.getElementById('image').naturalWidth > 0")
        assert page.evaluate(SIZE, "image") == page.evaluate(SIZE, "map")
