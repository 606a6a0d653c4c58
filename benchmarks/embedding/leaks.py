#!/usr/bin/env python3
"""Leaks of the C++ library: valgrind over some predictions, and resident memory over 10,000.  Prints JSON.

    python benchmarks/embedding/leaks.py BUNDLE IMAGE [--checked 300] [--predictions 10000] [--opened 20]

A prediction is decode, resize, run, rank.  valgrind's memcheck is some forty times slower than the machine, so it sees
fewer predictions; "definitely lost" blocks with a frame of this library on their stack are leaks, those without one are
the runtime's own and are counted apart.  Resident memory is read after every tenth of the 10,000.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.cpp import build as cpp_build  # noqa: E402  (the path above is what makes it importable)


def valgrind(program: Path, arguments: list[str], report: Path) -> dict[str, Any]:
    """Blocks and bytes that memcheck calls definitely lost, ours and others', and its other errors in our code."""
    command = ["valgrind", "--leak-check=full", "--show-leak-kinds=definite", "--error-limit=no", "--num-callers=60"]
    command += ["--xml=yes", f"--xml-file={report}", str(program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=7200)
    found = {"exit_code": done.returncode, "lost_ours": 0, "lost_others": 0, "bytes_ours": 0, "bytes_others": 0}
    errors = {"errors_ours": 0, "errors_others": 0}
    for error in ElementTree.parse(report).getroot().iter("error"):
        kind = error.findtext("kind") or ""
        objects = {Path(frame.findtext("obj") or "").name for frame in error.iter("frame")}
        # The program itself holds the library's objects.
        functions = " ".join(frame.findtext("fn") or "" for frame in error.iter("frame"))
        is_ours = any(name.startswith("libsamdeploy.so") for name in objects) and "ov::" not in functions
        whose = "ours" if is_ours else "others"
        if kind == "Leak_DefinitelyLost":
            found[f"lost_{whose}"] += int(error.findtext("xwhat/leakedblocks") or 0)
            found[f"bytes_{whose}"] += int(error.findtext("xwhat/leakedbytes") or 0)
        elif not kind.startswith("Leak_"):
            errors[f"errors_{whose}"] += 1
    return {**found, **errors}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--checked", type=int, default=300, help="predictions under valgrind; 0: without it")
    parser.add_argument("--predictions", type=int, default=10_000)
    parser.add_argument("--opened", type=int, default=20, help="times that the bundle is opened and closed")
    options = parser.parse_args()
    built = cpp_build.build("")
    program = built.folder / "samdeploy-endurance"
    common = [str(options.bundle), str(options.image)]
    text = subprocess.run(
        [str(program), *common, str(options.predictions), str(options.opened)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    opened, running = (list(map(int, re.findall(r"\d+", line))) for line in text.splitlines())
    result: dict[str, Any] = {
        "predictions": options.predictions,
        "rss_kib_by_tenth": running,
        # The first tenth warms up.
        "growth_kib": running[-1] - running[1],
        "opened": options.opened,
        "rss_kib_opened": opened,
        "growth_per_opening_kib": round((opened[-1] - opened[1]) / (len(opened) - 2), 1),
    }
    if options.checked:
        if shutil.which("valgrind") is None:
            print("leaks: valgrind is not installed: apt-get install valgrind", file=sys.stderr)
            return 2
        report = built.folder / "valgrind.xml"
        result["checked"] = options.checked
        result["valgrind"] = valgrind(program, [*common, str(options.checked), "2"], report)
    print(json.dumps(result))
    return 1 if options.checked and result["valgrind"]["lost_ours"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
