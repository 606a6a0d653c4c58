"""The tests marked `gpu`."""

from __future__ import annotations

import argparse
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from child import NotRun, emit, run
from networks import Plan


def step(plan: Plan, work: Path, options: argparse.Namespace) -> None:
    if not Path("tests").is_dir():
        raise NotRun("no folder 'tests' here; start this at the repository's root")
    report = work / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", f"--junitxml={report}", "tests"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 5:
        raise NotRun("no test is marked gpu")
    if not report.exists():
        emit(
            kind="tests", status=f"failed: exit status {done.returncode}; {(done.stdout + done.stderr).strip()[-600:]}"
        )
        return
    suite = ElementTree.parse(report).getroot().find("testsuite")
    assert suite is not None
    count = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
    failed = [
        {"test": f"{case.get('classname')}::{case.get('name')}", "message": (found.get("message") or "")[:400]}
        for case in suite.iter("testcase")
        for found in (*case.findall("failure"), *case.findall("error"))
    ]
    skips = sorted({(s.get("message") or "")[:200] for s in suite.iter("skipped")})
    emit(
        kind="tests",
        status="ok" if done.returncode == 0 else f"failed: {', '.join(f['test'] for f in failed)}",
        passed=count["tests"] - count["failures"] - count["errors"] - count["skipped"],
        failed=count["failures"],
        errors=count["errors"],
        skipped=count["skipped"],
        failures=failed,
        skip_reasons=skips,
    )


if __name__ == "__main__":
    run(step)
