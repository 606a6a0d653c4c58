#!/usr/bin/env python3
"""Leaks of the C++ library: 10,000 predictions under valgrind, and resident memory without it.  Prints JSON.

    .venv/bin/python benchmarks/embedding/leaks.py [--out FILE.json] [--checked 10000] [--predictions 10000]

A prediction is decode, resize, run, rank.  memcheck is some forty times slower than the machine, and what it looks for
does not depend on the network: without --bundle and --image, one convolution of 32 px and a JPEG of 96x64 pixels.
A block that is "definitely lost" was asked for by this library, or by the runtime inside a call of this library, or by
neither (what the runtime's threads and static objects leave).  The first kind makes the exit code 1, as does another
error of memcheck's in this library, and any kind as soon as there is a block for every tenth prediction.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from material import make_images, make_tiny_bundle

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.cpp import build as cpp_build  # noqa: E402  (the path above is what makes it importable)

# Where memory comes from, on behalf of whoever called them.
_ALLOCATORS = ("vgpreload_memcheck", "libstdc++", "libc.so", "ld-linux")
_OURS = ("libsamdeploy", "samdeploy-endurance")


def valgrind(program: Path, arguments: list[str], report: Path) -> dict[str, Any]:
    """Blocks and bytes that memcheck calls definitely lost, and its other errors, by whose they are."""
    command = ["valgrind", "--leak-check=full", "--show-leak-kinds=definite", "--error-limit=no", "--num-callers=60"]
    command += [f"--suppressions={ROOT / 'tests/cpp/suppressions/valgrind.txt'}"]
    command += ["--xml=yes", f"--xml-file={report}", str(program), *arguments]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    whose = ("ours", "runtime_in_our_calls", "others")
    lost = {name: {"blocks": 0, "bytes": 0} for name in whose}
    errors = dict.fromkeys(whose, 0)
    for error in ElementTree.parse(report).getroot().iter("error"):
        kind, name = error.findtext("kind") or "", _whose(error)
        if kind == "Leak_DefinitelyLost":
            lost[name]["blocks"] += int(error.findtext("xwhat/leakedblocks") or 0)
            lost[name]["bytes"] += int(error.findtext("xwhat/leakedbytes") or 0)
        elif not kind.startswith("Leak_"):
            errors[name] += 1
    if done.returncode:
        raise SystemExit(f"leaks: the program ended with {done.returncode} under valgrind: {done.stderr[-2000:]}")
    return {"seconds": round(time.perf_counter() - start), "definitely_lost": lost, "other_errors": errors}


def _whose(error: ElementTree.Element) -> str:
    """By the frame that asked: the innermost that is not the C or C++ library's own."""
    stack = error.find("stack")
    frames = [] if stack is None else list(stack.iter("frame"))
    names = [(Path(frame.findtext("obj") or "").name, frame.findtext("fn") or "") for frame in frames]
    callers = [(library, function) for library, function in names if not library.startswith(_ALLOCATORS)]
    ours = [library.startswith(_OURS) for library, _ in callers]
    # Templates and inline functions of the runtime's headers are compiled into our library.
    if ours and ours[0] and "ov::" not in callers[0][1].partition("(")[0]:
        return "ours"
    return "runtime_in_our_calls" if any(ours) else "others"


def resident(program: Path, common: list[str], predictions: int, opened: int) -> dict[str, Any]:
    """KiB of resident memory after every tenth of the predictions, and after every opening, without valgrind."""
    line = [str(program), *common, str(predictions), str(opened)]
    text = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    openings, running = (list(map(int, re.findall(r"\d+", each))) for each in text.splitlines())
    return {
        "predictions": predictions,
        "rss_kib_by_tenth": running,
        "growth_kib": running[-1] - running[1],  # the first tenth warms up
        "opened": opened,
        "rss_kib_opened": openings,
        "growth_per_opening_kib": round((openings[-1] - openings[1]) / (len(openings) - 2), 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--image", type=Path)
    parser.add_argument("--checked", type=int, default=10_000, help="predictions under valgrind; 0: without it")
    parser.add_argument("--predictions", type=int, default=10_000)
    parser.add_argument("--opened", type=int, default=20, help="times that the bundle is opened and closed")
    options = parser.parse_args()
    if options.checked and shutil.which("valgrind") is None:
        print("leaks: valgrind is not installed: apt-get install valgrind", file=sys.stderr)
        return 2
    from samdeploy.evaluate.machine import machine, versions

    program = cpp_build.build("").folder / "samdeploy-endurance"
    result: dict[str, Any] = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine(), "versions": versions(),
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="samdeploy-leaks-") as folder:
        work = Path(folder)
        bundle = options.bundle or make_tiny_bundle(work / "bundle")
        image = options.image or make_images(work / "images", 1, 96, 64)[0]
        common = [str(bundle), str(image)]
        result |= resident(program, common, options.predictions, options.opened)
        if options.checked:
            result["checked"] = options.checked
            result["valgrind"] = valgrind(program, [*common, str(options.checked), "2"], work / "valgrind.xml")
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if options.checked and is_bad(result["valgrind"], options.checked) else 0


def is_bad(found: dict[str, Any], predictions: int) -> bool:
    lost = found["definitely_lost"]
    per_prediction = any(10 * each["blocks"] >= predictions for each in lost.values())
    return bool(per_prediction or lost["ours"]["blocks"] or found["other_errors"]["ours"])


if __name__ == "__main__":
    raise SystemExit(main())
