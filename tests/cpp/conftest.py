"""The built library, and the program that reaches what Python cannot (cpp/tests/probe.cpp)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cpp import build as cpp_build

Probe = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def built() -> cpp_build.Build:
    """The C++ library; skipped with the reason where it cannot be built."""
    reason = cpp_build.missing()
    if reason:
        pytest.skip(reason)
    return cpp_build.build()


@pytest.fixture(scope="session")
def probe(built: cpp_build.Build) -> Probe:
    """`probe(command, *arguments, stdin="")`: run `samdeploy-probe`, which must not crash."""

    def run(*arguments: str | Path | int, stdin: str = "") -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **cpp_build.SANITIZER_SETTINGS}
        done = subprocess.run(
            [str(built.probe), *map(str, arguments)],
            input=stdin, env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{arguments}: exit {done.returncode}\n{done.stderr[-4000:]}"
        return done

    return run
