"""Kill a training with SIGKILL again and again, resume it each time, and compare it with one that nobody disturbed.

    python benchmarks/training/kills.py [--kills 50] [--writes 10] [--seed 0] [--set KEY=VALUE]... [--keep DIR]

A small real training (SAM-ResNet-18 on generated images; EMA, augmentation, accumulation, cosine rate) is killed at
random moments, some of them while a checkpoint's temporary file exists.  At the end the weights must be the same bytes,
and the history the same but for its times.  Exit code 0 only then.  The trainings are forked from a process that has
loaded PyTorch already, so that fifty lives take minutes; the kill and all files are real.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from PIL import Image

from samdeploy.train.checkpoints.resume import unfinished_runs
from samdeploy.train.loop import (
    train as loop,  # PyTorch; nothing is computed in this process, which must stay fit to be forked
)
from samdeploy.train.recipe.load import load_recipe
from samdeploy.train.recipe.recipe import Recipe

RECIPE = """
[data]
name = "folder"
leaks = "report"
[model]
arch = "{arch}"
gate = "identity"
pretrained = false
[image]
height = 32
width = 32
[augment]
flip = true
crop_padding = 4
[training]
epochs = {epochs}
batch_size = 16
learning_rate = 5e-4
schedule = "cosine"
warmup_epochs = 1
device = "cpu"
precision = "fp32"
clip_norm = 1.0
ema_decay = 0.99
accumulate = 2
patience = 0
checkpoint_minutes = 0.02
"""
TIMES = ("images_per_s", "seconds")  # columns that no two runs share


def make_images(root: Path) -> None:
    """Dark against bright images, overlapping."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 40), ("val", 8), ("test", 8)):
        for label, level in (("bright", 140), ("dark", 110)):
            folder = root / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(draw.normal(level + draw.normal(0, 20), 20, (8, 8, 3)), 0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")


def life(recipe: Recipe, runs: Path, log: Path) -> None:
    """One process: go on with what is there, or begin."""
    with log.open("a") as file:
        os.dup2(file.fileno(), 2)
        os.dup2(file.fileno(), 1)
    found = unfinished_runs(runs)
    loop.resume(found[0]) if found else loop.train(recipe, runs_root=runs)


def unfinished_files(runs: Path) -> set[Path]:
    """Checkpoints that are being written, or were when a kill came."""
    try:
        return set(runs.glob("*/checkpoints/.next.safetensors-*"))
    except FileNotFoundError:  # the run has just come to its end, and its checkpoints went
        return set()


def history(run: Path) -> list[dict[str, str]]:
    """history.csv without its times."""
    with (run / "history.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(file)]


def complete(runs: Path) -> Path | None:
    """The finished run, if there is one."""
    found = [path.parent for path in runs.glob("*/run.json") if '"status": "complete"' in path.read_text()]
    return found[0] if found else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--writes", type=int, default=10, help="how many of them during a write")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--arch", default="sam-resnet18")
    parser.add_argument("--longest", type=float, default=5.0, help="seconds from the first word until a kill, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="of the recipe"
    )
    parser.add_argument("--keep", type=Path, help="work here and leave everything")
    arguments = parser.parse_args()
    work = arguments.keep or Path(tempfile.mkdtemp(prefix="samdeploy-kills-"))
    work.mkdir(parents=True, exist_ok=True)
    make_images(work / "images")
    (work / "tiny.toml").write_text(RECIPE.format(arch=arguments.arch, epochs=arguments.epochs))
    recipe = load_recipe(work / "tiny.toml", [f"data.root={work / 'images'}", *arguments.settings])
    fork = multiprocessing.get_context("fork")
    calm = fork.Process(target=life, args=(recipe, work / "calm", work / "calm.log"))
    start = time.monotonic()
    calm.start()
    calm.join()
    print(f"undisturbed: exit {calm.exitcode}, {time.monotonic() - start:.1f} s")
    draw = random.Random(arguments.seed)
    kinds = ["write"] * arguments.writes + ["moment"] * (arguments.kills - arguments.writes)
    draw.shuffle(kinds)
    runs, done, in_write, lives = work / "killed", 0, 0, 0
    while done < arguments.kills:
        if complete(runs):  # it came to its end in spite of us: once more from the start
            runs = runs.with_name(f"killed-{done}")
        child = fork.Process(target=life, args=(recipe, runs, work / "killed.log"))
        log = work / "killed.log"
        lines = log.read_text().count("training sam-") if log.is_file() else 0
        child.start()
        lives += 1
        while child.is_alive() and not (log.is_file() and log.read_text().count("training sam-") > lines):
            time.sleep(0.01)  # it reads its images
        old = unfinished_files(runs)
        if kinds[done] == "write":
            time.sleep(draw.uniform(0, arguments.longest))
            while child.is_alive() and not unfinished_files(runs) - old:
                time.sleep(0.0005)
            time.sleep(draw.uniform(0, 0.05))
        else:
            child.join(draw.uniform(0, arguments.longest))
        if child.is_alive():
            os.kill(child.pid or 0, signal.SIGKILL)
            child.join()
            done += 1
            in_write += bool(unfinished_files(runs) - old)  # one is left: the kill came before its rename
        elif child.exitcode not in (0, -signal.SIGKILL):
            sys.exit(f"a life ended with exit code {child.exitcode}; see {work / 'killed.log'}")
    while not complete(runs):
        child = fork.Process(target=life, args=(recipe, runs, work / "killed.log"))
        child.start()
        child.join()
        if child.exitcode:
            sys.exit(f"could not be resumed: exit code {child.exitcode}; see {work / 'killed.log'}")
    reference = complete(work / "calm")
    compared = 0
    for folder in sorted(work.glob("killed*")):
        run = complete(folder) if folder.is_dir() else None
        if run is None or reference is None:
            continue
        compared += 1
        if (run / "weights.safetensors").read_bytes() != (reference / "weights.safetensors").read_bytes():
            sys.exit(f"other weights than undisturbed: {run} against {reference}")
        if history(run) != history(reference):
            sys.exit(f"another history than undisturbed: {run} against {reference}")
    resumed = (work / "killed.log").read_text().count(", going on at ")
    print(
        f"{done} kills (seed {arguments.seed}), {in_write} of them during a write; {lives} lives, {resumed} went on "
        f"from a checkpoint; {compared} run(s) completed, weights and history equal to the undisturbed run, "
        f"{time.monotonic() - start:.0f} s"
    )
    if arguments.keep is None:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
