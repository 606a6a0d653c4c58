"""Debian packages that tests need, and the line that ends a run in which some of them were missing.

    python -m tests.packages        names those that are missing here

SAMDEPLOY_REQUIRE=cpp,browser makes a run fail in which tests of these groups were skipped for a missing package.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import pytest

# Group -> package -> what it brings: programs, of which one will do, or a header.
NEEDED = {
    "cpp": {
        "cmake": "cmake",
        "g++": "c++",
        "nlohmann-json3-dev": "nlohmann/json.hpp",
        "libjpeg62-turbo-dev": "jpeglib.h",
        "libpng-dev": "png.h",
        "libssl-dev": "openssl/evp.h",
    },
    "browser": {"chromium": "chromium chromium-browser google-chrome"},
    "docs": {"curl": "curl"},
    "optional": {"strace": "strace"},
}
CHROMIUM = next(filter(None, map(shutil.which, NEEDED["browser"]["chromium"].split())), None)
# Makes a run fail, not only end with a line.
_REQUIRE = frozenset(filter(None, os.environ.get("SAMDEPLOY_REQUIRE", "").split(",")))
_REASON = re.compile(r"\[(\w+)\] needs (apt-get|pip) install (.+)")


def reason(group: str, packages: Iterable[str], installer: str = "apt-get") -> str:
    """Of a skip, as `pytest_terminal_summary` reads it."""
    return f"[{group}] needs {installer} install {' '.join(packages)}"


def missing(group: str) -> list[str]:
    """The packages of this group that are not installed."""
    return [package for package, brings in NEEDED[group].items() if not _is_there(brings)]


def lacking(group: str) -> str | None:
    """Why the tests of this group are skipped; None where nothing is missing."""
    packages = missing(group)
    return reason(group, packages) if packages else None


def _is_there(brings: str) -> bool:
    if not brings.endswith((".h", ".hpp")):
        return any(map(shutil.which, brings.split()))
    if shutil.which("c++") is None:
        return False
    source = f"#include <cstdio>\n#include <{brings}>\n"
    command = ["c++", "-x", "c++", "-E", "-o", os.devnull, "-"]
    return subprocess.run(command, input=source, text=True, capture_output=True, check=False).returncode == 0


def _skipped(config: pytest.Config) -> list[re.Match[str]]:
    """The reasons of all tests that were skipped for a package, from all processes of a parallel run."""
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    reports = reporter.stats.get("skipped", []) if reporter else []
    found = (_REASON.search(str(report.longrepr[2])) for report in reports if report.longrepr)
    return [match for match in found if match]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run that tested less than it had to is no success."""
    is_worker = hasattr(session.config, "workerinput")
    if not is_worker and session.exitstatus == 0 and any(match[1] in _REQUIRE for match in _skipped(session.config)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """One line before pytest's own last one: how many tests were skipped, and what installs what they need."""
    skipped = _skipped(config)
    if not skipped:
        return
    groups: dict[str, list[re.Match[str]]] = defaultdict(list)
    for match in skipped:
        groups[match[1]].append(match)
    counts = ", ".join(f"{len(found)} {group}" for group, found in sorted(groups.items()))
    installs: dict[str, dict[str, None]] = defaultdict(dict)
    for match in skipped:
        installs[match[2]].update(dict.fromkeys(match[3].split()))
    cure = " && ".join(f"{installer} install {' '.join(packages)}" for installer, packages in sorted(installs.items()))
    failed = "FAILED, SAMDEPLOY_REQUIRE: " if _REQUIRE & groups.keys() else ""
    terminalreporter.write_line(
        f"{failed}{len(skipped)} tests skipped for missing packages ({counts}); to run them: {cure}"
    )


if __name__ == "__main__":
    print(*(package for group in NEEDED for package in missing(group)))
