"""Check samdeploy on a GPU and time it beside its alternatives: gpu_check.py OUT_DIR.

Needs PyTorch and torchvision; ONNX Runtime with CUDA, TensorRT and TensorRT-RTX are used where they are installed.
Every step runs in a process of its own with a limit of its own; whatever fails is reported, and the rest goes on.
Writes OUT_DIR/gpu_check.json, anew after every step, and prints a table.  Exit status 0 unless OUT_DIR cannot be
written: read the steps' status.

First, untimed and beside one another: tests, graphs, samdeploy.  Then, one at a time, what is timed.  Last, with the
time that is left: torch.compile, whose compilations take 20 to 60 s each on 16 cores.  Its mode max-autotune takes
minutes for each and is left out unless it is asked for: --only compile-max-192 --budget 1500 --prepare-seconds 1200.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
import report
from process import Child

_HERE = Path(__file__).parent

# name: (script, arguments, limit in seconds)
_BESIDE: dict[str, tuple[str, list[str], float]] = {
    "graphs": ("step_graphs.py", [], 150),
    "samdeploy": ("step_samdeploy.py", [], 150),
    "tests": ("step_tests.py", [], 150),
}
_ALONE: dict[str, tuple[str, list[str], float]] = {
    "eager-192": ("step_pytorch.py", ["--px", "192"], 60),
    "tensorrt": ("step_tensorrt.py", [], 150),
    "onnxruntime-192": ("step_onnxruntime.py", ["--px", "192"], 80),
    "train": ("step_train.py", [], 60),
    "eager-64": ("step_pytorch.py", ["--px", "64"], 60),
    "onnxruntime-64": ("step_onnxruntime.py", ["--px", "64"], 80),
}
# Compiled beside one another, timed one at a time; the limits are those of the timing.
_COMPILED: dict[str, tuple[str, list[str], float]] = {
    "compile-192": ("step_compile.py", ["--px", "192", "--mode", "reduce-overhead"], 25),
    "compile-64": ("step_compile.py", ["--px", "64", "--mode", "reduce-overhead"], 25),
    "compile-max-192": ("step_compile.py", ["--px", "192", "--mode", "max-autotune"], 25),
}
_ON_REQUEST = ("compile-max-192",)
_SETUP: tuple[str, list[str], float] = ("step_setup.py", [], 90)
# How much later than asked a compilation may stop, in seconds.
_GRACE = 15
_LEAST_PREPARE = 40
STEPS = ("setup", *_BESIDE, *_ALONE, *_COMPILED)


class Check:
    """One run of all steps, against one clock."""

    def __init__(self, out: Path, work: Path, options: argparse.Namespace) -> None:
        self._out, self._work, self._options = out, work, options
        self._end = time.monotonic() + options.budget
        self._limits = dict(_limit(text) for text in options.limit)
        self._running: list[Child] = []
        self._prepare = 0.0
        self._steps: dict[str, dict[str, Any]] = {}
        self.result: dict[str, Any] = {
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "rehearsal": options.rehearse,
            "gpu": machine.gpu(),
            "versions": machine.versions(),
            "clocks_before": machine.clocks(),
            "notes": _NOTES,
            "steps": [],
            "rows": [],
        }

    def run(self) -> None:
        if not self._wanted("setup", needed=True):
            return
        setup = self._start("setup", _SETUP)
        setup.finish(self._limit("setup", _SETUP))
        self._record(setup)
        if setup.status != "ok":
            why = setup.status if setup.status.startswith("not run") else "not run: the step 'setup' failed"
            for name in STEPS[1:]:
                self._skip(name, why)
            return
        self._run_beside()
        for name, step in _ALONE.items():
            if self._wanted(name):
                child = self._start(name, step)
                child.finish(self._limit(name, step))
                self._record(child)
        self._run_compiled()

    def _run_beside(self) -> None:
        beside = {name: self._start(name, step) for name, step in _BESIDE.items() if self._wanted(name)}
        begun = time.monotonic()
        for name, child in beside.items():
            child.finish(min(begun + self._limits.get(name, _BESIDE[name][2]), self._end) - time.monotonic())
            self._record(child)

    def _run_compiled(self) -> None:
        names = [name for name in _COMPILED if self._wanted(name)]
        timing = sum(self._limits.get(name, _COMPILED[name][2]) for name in names)
        self._prepare = min(self._options.prepare_seconds, self._end - time.monotonic() - timing - _GRACE)
        if self._prepare < _LEAST_PREPARE:
            for name in names:
                self._skip(name, f"not run: the {self._options.budget:.0f} s of --budget leave no time to compile")
            return
        children = {name: self._start(name, _COMPILED[name]) for name in names}
        ready_by = time.monotonic() + self._prepare + _GRACE
        # Nothing is timed while anything still compiles: what does not stop by itself is ended.
        for child in children.values():
            if not child.wait_ready(ready_by - time.monotonic()):
                child.finish(0)
                self._record(child)
        for name, child in children.items():
            if not child.status:
                (self._work / f"turn-{name}").touch()
                child.finish(self._limit(name, _COMPILED[name]))
                self._record(child)

    def write(self) -> None:
        order = {name: index for index, name in enumerate(STEPS)}
        self.result["steps"] = sorted(self._steps.values(), key=lambda step: order[step["name"]])
        self.result["clocks_after"] = machine.clocks()
        path = self._out / "gpu_check.json"
        part = path.with_suffix(".part")
        part.write_text(json.dumps(self.result, indent=1) + "\n")
        part.replace(path)

    def kill(self) -> None:
        for child in self._running:
            child.kill()

    def _wanted(self, name: str, *, needed: bool = False) -> bool:
        if self._options.only and name not in self._options.only and not needed:
            self._skip(name, "not run: left out by --only")
            return False
        if name in _ON_REQUEST and name not in self._options.only:
            self._skip(name, f"not run: takes too long unless asked for by --only {name}")
            return False
        if self._end - time.monotonic() < 10:
            self._skip(name, f"not run: the {self._options.budget:.0f} s of --budget are spent")
            return False
        return True

    def _limit(self, name: str, step: tuple[str, list[str], float]) -> float:
        return max(1.0, min(self._limits.get(name, step[2]), self._end - time.monotonic()))

    def _start(self, name: str, step: tuple[str, list[str], float]) -> Child:
        script, arguments, _ = step
        command = [str(_HERE / script), "--work", str(self._work), "--name", name, *arguments]
        if name.startswith("compile"):
            command += ["--prepare-seconds", f"{self._prepare:.0f}"]
        if self._options.rehearse:
            small = {"192": "64", "64": "32"}
            command = [small.get(part, part) for part in command] + ["--rehearse"]
        child = Child(name, command, self._work / f"{name}.log")
        self._running.append(child)
        return child

    def _record(self, child: Child) -> None:
        self._running.remove(child)
        step = {"name": child.name, "status": child.status, "seconds": child.seconds, "clocks": machine.clocks()}
        if child.status.startswith("failed"):
            step["log"] = _tail(self._work / f"{child.name}.log")
        self._steps[child.name] = step
        self.result["rows"] += [{"step": child.name, **row} for row in child.rows]
        print(f"{child.name:20s} {child.seconds:7.1f} s  {child.status[:200]}", flush=True)
        self.write()

    def _skip(self, name: str, status: str) -> None:
        self._steps[name] = {"name": name, "status": status, "seconds": 0.0}


_NOTES = [
    "ms: time of one call between two CUDA events, in a batch of calls in rotation over 4 input buffers; input uint8 "
    "and output float32 stay on the device; gaps between kernels that the host leaves are counted.",
    "The networks of one runtime, size and batch take turns in five rounds.  Order of runtimes: one after another.",
    "max_diff_of_range: largest difference from float32 eager logits (TF32 off) over their range, on the first "
    "images of a batch.  Weights are random with calibrated batch norms, so the two largest logits can lie close.",
    "compile is torch.compile(mode='reduce-overhead'), compile-max is mode='max-autotune'; several are compiled at a "
    "time, one is timed at a time.",
]


def _tail(log: Path) -> list[str]:
    # Without folders: results are published.
    home = str(Path.cwd())
    return [line.replace(home, ".")[-300:] for line in log.read_text(errors="replace").splitlines()[-8:]]


def _limit(text: str) -> tuple[str, float]:
    name, _, seconds = text.partition("=")
    if name not in STEPS:
        sys.exit(f"--limit {text}: no such step; expected one of {', '.join(STEPS)}")
    return name, float(seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    parser.add_argument("--budget", type=float, default=460, metavar="S", help="seconds for everything (460)")
    parser.add_argument("--prepare-seconds", type=float, default=150, metavar="S", help="for torch.compile (150)")
    parser.add_argument("--limit", action="append", default=[], metavar="STEP=S", help="seconds for one step")
    parser.add_argument("--only", action="append", default=[], choices=STEPS, metavar="STEP", help="these steps alone")
    parser.add_argument("--rehearse", action="store_true", help="small and on the CPU: tries this program, no figures")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="gpu_check-"))
    check = Check(options.out, work, options)
    # An outer limit sends SIGTERM first: what was found until then is already written.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        check.run()
    finally:
        check.kill()
        check.write()
        shutil.rmtree(work, ignore_errors=True)
    print("\n" + report.table(check.result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
