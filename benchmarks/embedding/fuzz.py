#!/usr/bin/env python3
"""Fuzz everything of the C++ library that reads foreign bytes: executions, coverage, crashes, one JSON line per target.

    python benchmarks/embedding/fuzz.py [--minutes 10] [--target NAME]... [--out result.json]

With clang it builds libFuzzer's targets (coverage-guided), else cpp/tests/fuzz/driver.cpp with the system's compiler;
both with AddressSanitizer, LeakSanitizer and UndefinedBehaviorSanitizer.  `--minutes` are CPU minutes of all targets
together.  Exit code 1 if anything was found; the inputs that did it lie in the folder that is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.cpp import seeds  # noqa: E402  (the path above is what makes it importable)

COMPILERS = ("clang++", *(f"clang++-{version}" for version in range(21, 12, -1)))


def clang() -> str | None:
    """A clang that has libFuzzer; None where there is none."""
    for name in COMPILERS:
        if shutil.which(name):
            command = [name, "-fsanitize=fuzzer,address", "-x", "c++", "-", "-o", os.devnull]
            source = 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }'
            if subprocess.run(command, input=source, text=True, capture_output=True, check=False).returncode == 0:
                return name
    return None


def build(folder: Path, compiler: str | None) -> Path:
    """Compile the targets; gives the folder of the programs.

    Raises:
        subprocess.CalledProcessError: the compiler failed.
    """
    options = ["-DSAMDEPLOY_SANITIZE=address", "-DSAMDEPLOY_BUILD_FUZZERS=ON", "-DCMAKE_BUILD_TYPE=RelWithDebInfo"]
    # No runtime is needed, and none is to be found.
    options += ["-DCMAKE_DISABLE_FIND_PACKAGE_OpenVINO=ON", "-DCMAKE_DISABLE_FIND_PACKAGE_Python3=ON"]
    if compiler:
        options += [f"-DCMAKE_CXX_COMPILER={compiler}", f"-DCMAKE_C_COMPILER={compiler.replace('++', '')}"]
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    targets = [f"fuzz-{target}" for target in seeds.TARGETS]
    for command in (
        ["cmake", *generator, "-S", ROOT / "cpp", "-B", folder, *options],
        ["cmake", "--build", folder, "--target", *targets],
    ):
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE, timeout=900)
    return folder / "fuzz"


def fuzz(program: Path, corpus: Path, cpu_seconds: float, *, libfuzzer: bool, seed: int = 1) -> dict[str, Any]:
    """Run one target in the folder of its corpus until it had its time of the processor; what it found lies there."""
    seeds_given = len(list(corpus.iterdir()))
    executions, used, text, code, edges_of_seeds = 0, 0.0, "", 0, None
    coverage: list[tuple[str, str]] = []
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=1:allocator_may_return_null=0"}
    while used < 0.95 * cpu_seconds and code == 0:
        # A machine with other work gives less of the processor than time goes by: it is asked again for the rest.
        wall = max(2, round(cpu_seconds - used))
        if libfuzzer:
            limits = ["-max_len=20000", "-rss_limit_mb=2000", "-timeout=60", f"-seed={seed}"]
            command = [str(program), f"-max_total_time={wall}", *limits, str(corpus)]
        else:
            command = [str(program), str(corpus), str(wall), str(seed)]
        process = subprocess.Popen(
            command, cwd=corpus.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        output = process.stdout.read() if process.stdout else b""
        # Not getrusage: that would add up what targets beside this one took.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = code = os.waitstatus_to_exitcode(status)
        used += usage.ru_utime + usage.ru_stime
        text = output.decode(errors="replace")
        runs = re.findall(r"^Done (\d+) runs|^executions (\d+)|^#(\d+)\t", text, re.MULTILINE)
        executions += int(next(filter(None, runs[-1]))) if runs else 0
        coverage = re.findall(r"cov: (\d+) ft: (\d+)", text)
        if edges_of_seeds is None and coverage:
            edges_of_seeds = int(coverage[0][0])
        seed += 1
    patterns = ("crash-*", "leak-*", "timeout-*", "oom-*")
    return {
        "target": program.name.removeprefix("fuzz-"),
        "engine": "libFuzzer" if libfuzzer else "driver",
        "executions": executions,
        "cpu_seconds": round(used, 1),
        "edges": int(coverage[-1][0]) if coverage else None,
        "edges_of_seeds": edges_of_seeds,
        "seeds": seeds_given,
        "corpus": len(list(corpus.iterdir())),
        "crashes": sorted(str(path) for pattern in patterns for path in corpus.parent.glob(pattern)),
        "exit_code": code,
        "summary": "" if code == 0 else "; ".join(re.findall(r"SUMMARY: .*|runtime error: .*", text)) or text[-500:],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="CPU minutes of all targets together")
    parser.add_argument("--target", action="append", choices=seeds.TARGETS)
    parser.add_argument("--jobs", type=int, default=1, help="targets at the same time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "fuzz")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    compiler = clang()
    programs = build(options.build, compiler)
    work = Path(tempfile.mkdtemp(prefix="samdeploy-fuzz-"))
    folders = seeds.write(work)
    targets = options.target or seeds.TARGETS
    seconds = 60.0 * options.minutes / len(targets)

    def run(target: str) -> dict[str, Any]:
        # Each in a folder of its own, where its crashes lie.
        corpus = folders[target].rename(work / f"{target}-corpus")
        (work / target).mkdir()
        corpus = corpus.rename(work / target / "corpus")
        program = programs / f"fuzz-{target}"
        row = fuzz(program, corpus, seconds, libfuzzer=compiler is not None, seed=options.seed)
        print(json.dumps(row), flush=True)
        return row

    with ThreadPoolExecutor(options.jobs) as pool:
        rows = list(pool.map(run, targets))
    found = [row for row in rows if row["exit_code"] or row["crashes"]]
    total = {
        "compiler": compiler or "c++",
        "cpu_seconds": round(sum(row["cpu_seconds"] for row in rows), 1),
        "targets": rows,
    }
    if options.out:
        options.out.write_text(json.dumps(total, indent=1) + "\n")
    if found:
        print(f"fuzz: {len(found)} targets found something; the inputs are in {work}", file=sys.stderr)
    else:
        shutil.rmtree(work)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
