"""Kill a labelling with SIGKILL again and again, start it again each time, and compare it with an undisturbed one.

    python benchmarks/label/kills.py BUNDLE [--kills 30] [--images 1500] [--ways one,two,ray] [--out FILE]

Three ways, each with so many kills: one process; two with `--shard 1/2` and `2/2` beside one another, each killed at a
moment of its own; and `--engine ray --workers 2`, all processes of whose cluster are killed at once.  One kill in five
comes at a random moment of the start; the others at a random moment between the first part that this start has written
and the last.  After each kill every part that is there has the bytes of the undisturbed labelling; at the end all parts
have, no row is lost and none is there twice.  Exit code 0 only then.  A labelling that comes to its end before the kill
is compared, and the next begins in a folder of its own.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from samdeploy.bundle import open_bundle
from samdeploy.evaluate.machine import machine, versions

ROWS = 25
WAYS = {"one": [[]], "two": [["--shard", "1/2"], ["--shard", "2/2"]], "ray": [["--engine", "ray", "--workers", "2"]]}
# In the environment of every process that a life starts, Ray's own too, which leave its process group.
MARK = "SAMDEPLOY_KILLS"


class Life:
    """One process, and all that it starts."""

    def __init__(self, command: list[str], folder: Path, number: int) -> None:
        self._mark = f"{os.getpid()}-{number}"
        environment = {**os.environ, MARK: self._mark, "RAY_TMPDIR": str(folder / "r"), "RAY_USAGE_STATS_ENABLED": "0"}
        self._log = (folder / "log").open("a")
        self._process = subprocess.Popen(
            command, env=environment, stdout=self._log, stderr=self._log, start_new_session=True
        )

    def is_over(self) -> bool:
        """Whether it came to its end by itself.

        Raises:
            SystemExit: with an error.
        """
        if self._process.poll():
            sys.exit(f"a life ended with exit code {self._process.returncode}; see {self._log.name}")
        return self._process.poll() is not None

    def kill(self) -> int:
        """All its processes; how many they were."""
        found: set[int] = set()
        while new := self._processes() - found:  # one may just have started another
            for number in new:
                with suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            found |= new
        self._process.wait()
        return len(found)

    def wait(self) -> None:
        """Until it comes to its end."""
        self._process.wait()
        self.is_over()

    def _processes(self) -> set[int]:
        found = set()
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if f"{MARK}={self._mark}\0".encode() in path.read_bytes():
                    found.add(int(path.parent.name))
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="k", ignore_cleanup_errors=True) as name:
        trial = Trial(options, Path(name))
        found = {way: trial.of(way) for way in options.ways.split(",")}
        spec = open_bundle(options.bundle).spec
        values = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(), "versions": versions(),
            "command": f"benchmarks/label/kills.py BUNDLE --kills {options.kills} --images {options.images} "
            f"--ways {options.ways}",
            "network": f"{spec.arch}, {spec.preprocessing.width} px, onnxruntime, fp32",
            "rows": options.images, "rows_a_part": ROWS, "seed": options.seed, "ways": found,
        }  # fmt: skip
    print(json.dumps(values, indent=1))
    if options.out:
        options.out.write_text(json.dumps(values, indent=1) + "\n")


class Trial:
    """The images, and what an undisturbed labelling makes of them."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options, self._folder = options, folder
        self._draw = random.Random(options.seed)
        self._lives = 0
        _write(folder / "images", options.images)
        self._seconds: dict[str, tuple[float, float]] = {}
        self._time("one", folder / "calm")
        self._calm = _parts(folder / "calm")
        self._compare(folder / "calm", self._calm)

    def of(self, way: str) -> dict[str, Any]:
        """So many kills."""
        if way not in self._seconds:
            self._time(way, self._folder / f"{way}-calm")
            self._compare(self._folder / f"{way}-calm", self._calm)
        kills, labellings, parts_there, new_parts, processes = 0, 0, [], [], []
        out = self._folder / f"{way}-0"
        while kills < self._options.kills:
            before = _count(out)
            lives = self._start(way, out)
            whole, working = self._seconds[way]
            most = whole - working
            if kills % 5:
                while _count(out) == before and not all(life.is_over() for life in lives):
                    time.sleep(0.002)
                most = working * (1 - before / len(self._calm))
            begin = time.monotonic()
            moments = sorted((self._draw.uniform(0, most), number) for number in range(len(lives)))
            for moment, number in moments:
                while time.monotonic() - begin < moment and not lives[number].is_over():
                    time.sleep(0.002)
                if not lives[number].is_over():
                    parts_there.append(_count(out))
                    new_parts.append(parts_there[-1] - before)
                    processes.append(lives[number].kill())
                    kills += 1
            self._check(out)
            if len(_parts(out)) == len(self._calm):
                self._end(way, out)
                labellings += 1
                out = self._folder / f"{way}-{labellings}"
        self._end(way, out)
        return {
            "kills": kills, "labellings": labellings + 1, "seconds_undisturbed": round(self._seconds[way][0], 1),
            "parts_at_kill": parts_there, "new_parts_at_kill": new_parts,
            "after_a_new_part": sum(new > 0 for new in new_parts), "processes_killed": processes,
            "rows_lost": 0, "rows_twice": 0, "bytes_equal": True,
        }  # fmt: skip

    def _time(self, way: str, out: Path) -> None:
        """Undisturbed: seconds in all, and from the first part to the last."""
        begin = time.monotonic()
        self._run(way, out)
        written = [path.stat().st_mtime for path in out.glob("part-*.parquet")]
        self._seconds[way] = time.monotonic() - begin, max(written) - min(written)

    def _end(self, way: str, out: Path) -> None:
        """Go on until it is done; every row once, and the bytes of the undisturbed one."""
        if not (out / "_summary.json").is_file():
            self._run(way, out)
        self._compare(out, self._calm)

    def _compare(self, out: Path, calm: dict[str, bytes]) -> None:
        rows = [row for data in _parts(out).values() for row in pq.read_table(io.BytesIO(data))["row"].to_pylist()]
        if sorted(rows) != list(range(self._options.images)):
            sys.exit(f"{out}: rows lost or there twice")
        if _parts(out) != calm or not (out / "_summary.json").is_file():
            sys.exit(f"{out}: other bytes than undisturbed, or no summary")

    def _check(self, out: Path) -> None:
        """What is there after a kill is whole."""
        for name, data in _parts(out).items():
            if data != self._calm[name]:
                sys.exit(f"{out / name}: other bytes than undisturbed, after a kill")

    def _start(self, way: str, out: Path) -> list[Life]:
        lives = []
        for more in WAYS[way]:
            command = [sys.executable, "-m", "samdeploy", "label", self._options.bundle, self._folder / "images"]
            command += ["--out", out, "--rows", ROWS, "--backend", "onnxruntime", *more]
            self._lives += 1
            lives.append(Life(list(map(str, command)), self._folder, self._lives))
        return lives

    def _run(self, way: str, out: Path) -> None:
        for life in self._start(way, out):
            life.wait()


def _parts(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("part-*.parquet"))}


def _count(out: Path) -> int:
    return sum(1 for _ in out.glob("part-*.parquet"))


def _write(folder: Path, count: int) -> None:
    """Blocks of colour, 640x480; one in a hundred is broken."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    for number in range(count):
        pixels = draw.integers(0, 256, (24, 32, 3), np.uint8)
        path = folder / f"{number:05d}.jpg"
        Image.fromarray(pixels).resize((640, 480)).save(path, quality=90)
        if number % 100 == 50:
            path.write_bytes(b"broken")


if __name__ == "__main__":
    main()
