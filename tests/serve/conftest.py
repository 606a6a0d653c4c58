"""One server for all that do not need one of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from samdeploy.bundle import Bundle
from tests.serve.server import Served, serving


@pytest.fixture(scope="package")
def served(digits_bundle: Bundle, cam_bundle: Bundle, environment: dict[str, str]) -> Iterator[Served]:
    places = (f"digits={digits_bundle.root}", f"maps:3={cam_bundle.root}")
    options = ("--max-bytes", "2000000", "--max-pixels", "100000", "--backend", "onnxruntime")
    with serving(environment, *places, *options) as server:
        yield server
