"""What a run says that lacks system packages, tried with a PATH on which nothing is found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CPP, BROWSER = "tests/cpp/test_fuzz.py::test_a_defect_would_be_found", "tests/report/test_browser.py"


@pytest.mark.parametrize(
    ("tests", "required", "parallel", "code"),
    [
        ([CPP, BROWSER], "", True, 0),
        ([CPP], "cpp,browser", False, 1),
        ([BROWSER], "cpp,browser", True, 1),
        ([BROWSER], "cpp", False, 0),
    ],
)
def test_missing_packages_are_named_at_the_end(
    tests: list[str], required: str, parallel: bool, code: int, environment: dict[str, str]
) -> None:
    workers = ["-n", "2"] if parallel else ["-p", "no:xdist"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *workers, *tests], cwd=Path(__file__).parents[1],
        env={**environment, "PATH": os.devnull, "SAMDEPLOY_REQUIRE": required},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    line, last = done.stdout.splitlines()[-2:]
    assert done.returncode == code, done.stdout
    assert last.endswith("s") and " skipped in " in last
    assert line.startswith("FAILED, SAMDEPLOY_REQUIRE: ") is bool(code)
    assert " tests skipped for missing packages (" in line and "; to run them: apt-get install " in line
    assert ("cmake g++ nlohmann-json3-dev libjpeg62-turbo-dev libpng-dev libssl-dev" in line) is (CPP in tests)
    assert ("chromium" in line) is (BROWSER in tests)
