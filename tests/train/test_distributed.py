"""Several real processes on the CPU (gloo): as good as one, stopped and gone on with, and no hang where one dies."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from samdeploy.run import open_run
from samdeploy.train.distributed import Ranks
from samdeploy.train.recipe import Recipe, dump_recipe
from samdeploy.train.state import join_small_end

pytestmark = pytest.mark.slow

MakeRecipe = Callable[..., Recipe]


def torchrun(processes: int, *arguments: str | Path, cwd: Path) -> subprocess.Popen[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.Popen(
        [*launcher, "-m", "samdeploy", "train", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def rows(run: Path) -> list[dict[str, float]]:
    with (run / "history.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def test_the_shares_of_all_ranks_are_the_whole() -> None:
    batch = torch.arange(10)
    shares = [Ranks(rank, 4, rank).share(batch) for rank in range(4)]
    assert sorted(torch.cat(shares).tolist()) == list(range(10))
    assert {len(share) for share in shares} == {2, 3}


def test_a_small_end_joins_the_batch_before() -> None:
    batches = torch.arange(10).split(4)  # 4, 4, 2
    assert [len(rows) for rows in join_small_end(batches, 2)] == [4, 4, 2]
    assert [len(rows) for rows in join_small_end(batches, 4)] == [4, 6]
    assert torch.cat(join_small_end(batches, 4)).tolist() == list(range(10))


def test_two_processes_learn_what_one_learns(recipe: MakeRecipe, tmp_path: Path) -> None:
    # Batch norm sees half of each batch in each process, so the figures are near but not equal; counts are exact.
    file = tmp_path / "it.toml"
    file.write_text(dump_recipe(recipe("epochs=3", "learning_rate=1e-4", "batch_size=11", "patience=0")))
    with torchrun(2, file, "--runs", "two", cwd=tmp_path) as two:
        out, said = two.communicate(timeout=300)
    assert two.returncode == 0, said
    one = subprocess.run(
        [sys.executable, "-m", "samdeploy", "train", str(file), "--runs", "one"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    run_two, run_one = tmp_path / out.strip(), tmp_path / one.stdout.strip()
    assert run_two.parent.name == "two"  # one line: only rank 0 printed
    assert said.count("\nepoch 1/3") == 1
    record = open_run(run_two)
    assert record.provenance["processes"] == "2"
    assert record.test_images == 10
    for found, expected in zip(rows(run_two), rows(run_one), strict=True):
        assert found["train_top1"] * 22 / 100 == pytest.approx(round(found["train_top1"] * 22 / 100), abs=1e-3)
        assert found["val_top1"] * 8 / 100 == pytest.approx(round(found["val_top1"] * 8 / 100), abs=1e-3)
        assert found["train_loss"] == pytest.approx(expected["train_loss"], abs=0.3)


def test_stopped_in_four_processes_and_gone_on_with_in_two(recipe: MakeRecipe, tmp_path: Path) -> None:
    file = tmp_path / "it.toml"
    file.write_text(dump_recipe(recipe("epochs=200", "batch_size=22", "patience=0")))
    with torchrun(4, file, cwd=tmp_path) as process:
        assert process.stderr is not None
        said = ""
        while "\nepoch   1/200" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        process.send_signal(signal.SIGTERM)
        said += process.stderr.read()
        process.wait(timeout=60)
    run = next((tmp_path / "runs").iterdir())
    assert f"go on with: samdeploy train --resume {run.relative_to(tmp_path)}" in said
    assert open_run(run).status == "interrupted"
    done = len(rows(run))
    with torchrun(2, "--resume", "--set", f"epochs={done + 1}", "--force", cwd=tmp_path) as process:
        out, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert out.strip() == str(run.relative_to(tmp_path))
    assert [row["epoch"] for row in rows(run)] == list(range(1, done + 2))
    assert open_run(run).status == "complete"


def test_an_error_is_said_once_and_ends_all(recipe: MakeRecipe, tmp_path: Path) -> None:
    file = tmp_path / "it.toml"
    file.write_text(dump_recipe(recipe("batch_size=3")))
    start = time.monotonic()
    with torchrun(2, file, cwd=tmp_path) as process:
        _, said = process.communicate(timeout=120)
    assert process.returncode != 0
    assert time.monotonic() - start < 100
    assert said.count("training.batch_size: 3 found, at least 4 expected: 2 process(es)") == 1
    assert not (tmp_path / "runs").exists()
