"""Python and C++ read the same files, and refuse the same: some two thousand damaged ones."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from samdeploy.bundle.spec import Preprocessing
from samdeploy.errors import ImageError
from samdeploy.images.decode import decode
from tests.cpp import mutations
from tests.cpp.ask import ask
from tests.cpp.conftest import Probe

# docs/bundle.md, 4.6: a reader may refuse these.
FREE = ("pixels with no checksum", "pixels with half a checksum")


def test_both_refuse_the_same_files_and_see_the_same_pixels(probe: Probe, tmp_path: Path) -> None:
    cases = [(name, content) for name, content in mutations.cases() if not name.endswith(FREE)]
    answers = ask(probe, tmp_path, [(content, Preprocessing(9, 14)) for _, content in cases])
    wrong, read = [], 0
    for (name, content), answer in zip(cases, answers, strict=True):
        try:
            with warnings.catch_warnings(action="ignore"):
                expected = decode(content)
        except ImageError as error:
            if not isinstance(answer[0], int):
                wrong.append(f"{name}: read by C++ alone; Python: {error}")
            continue
        read += 1
        if isinstance(answer[0], int):
            wrong.append(f"{name}: read by Python alone; C++: {answer[1]}")
        elif not np.array_equal(answer[0], expected):
            wrong.append(f"{name}: other pixels")
    assert wrong == []
    assert 500 < read < len(cases) - 500
