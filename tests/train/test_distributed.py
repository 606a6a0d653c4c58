"""Several real processes on the CPU (gloo): as good as one, stopped and gone on with, and no hang where one dies."""

from __future__ import annotations

import csv
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from samdeploy.runs.record import open_run
from samdeploy.train.checkpoints.state import join_small_end
from samdeploy.train.distributed import Ranks
from samdeploy.train.loop.train import train
from samdeploy.train.recipe.dump import dump_recipe
from samdeploy.train.recipe.recipe import Recipe
from tests.train.started import SMALL, Started

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_network")]

MakeRecipe = Callable[..., Recipe]
Start = Callable[..., Started]


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


def together(start: Start, processes: int, *arguments: str | Path, cwd: Path, **variables: str) -> list[Started]:
    """The ranks of one training, with the variables that torchrun gives them, but without its start of seconds."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {**variables, "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [start(*arguments, cwd=cwd, RANK=str(rank), LOCAL_RANK=str(rank), **group) for rank in range(processes)]


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


def test_two_processes_learn_what_one_learns(recipe: MakeRecipe, tmp_path: Path, start: Start) -> None:
    # Batch norm sees half of each batch in each process, so the figures are near but not equal; counts are exact.
    wanted = recipe("epochs=3", "learning_rate=1e-4", "batch_size=11", "patience=0")
    file = tmp_path / "it.toml"
    file.write_text(dump_recipe(wanted))
    first, second = together(start, 2, "train", file, "--runs", "two", cwd=tmp_path)
    assert (first.wait(), second.wait()) == (0, 0), first.said
    run_two, run_one = tmp_path / first.out.strip(), train(wanted, runs_root=tmp_path / "one")
    assert run_two.parent.name == "two"
    assert (second.out, second.said) == ("", "")  # only rank 0 prints
    assert first.said.count(" 1/3 ") == 1
    record = open_run(run_two)
    assert [leg.processes for leg in record.legs] == [2]
    assert record.test_images == 10
    for found, expected in zip(rows(run_two), rows(run_one), strict=True):
        assert found["train_top1"] * 22 / 100 == pytest.approx(round(found["train_top1"] * 22 / 100), abs=1e-3)
        assert found["val_top1"] * 8 / 100 == pytest.approx(round(found["val_top1"] * 8 / 100), abs=1e-3)
        assert found["train_loss"] == pytest.approx(expected["train_loss"], abs=0.3)


def test_stopped_in_two_processes_and_gone_on_with_in_three(recipe: MakeRecipe, tmp_path: Path, start: Start) -> None:
    file = tmp_path / "it.toml"
    file.write_text(dump_recipe(recipe("epochs=200", "batch_size=22", "patience=0")))
    with torchrun(2, file, cwd=tmp_path) as process:
        assert process.stderr is not None
        said = ""
        while " 1/200 " not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        process.send_signal(signal.SIGTERM)
        said += process.stderr.read()
        process.wait(timeout=60)
    run = next((tmp_path / "runs").iterdir())
    assert f"go on with: torchrun --nproc-per-node 2 -m samdeploy train --resume {run.relative_to(tmp_path)}" in said
    assert open_run(run).status == "interrupted"
    done = len(rows(run))
    again = ("train", "--resume", "--set", f"epochs={done + 1}", "--force")
    ranks = together(start, 3, *again, cwd=tmp_path, **{SMALL: ""})  # torchrun's processes had the whole one
    assert [rank.wait() for rank in ranks] == [0, 0, 0], ranks[0].said
    assert ranks[0].out.strip() == str(run.relative_to(tmp_path))
    assert [row["epoch"] for row in rows(run)] == list(range(1, done + 2))
    assert open_run(run).status == "complete"


def test_an_error_is_said_once_and_ends_all(recipe: MakeRecipe, tmp_path: Path, start: Start) -> None:
    file = tmp_path / "it.toml"
    file.write_text(dump_recipe(recipe("batch_size=3")))
    first, second = together(start, 2, "train", file, cwd=tmp_path)
    assert (first.wait(), second.wait()) == (2, 2)
    assert first.said.count("training.batch_size: 3 found, at least 4 expected: 2 process(es)") == 1
    assert second.said == ""
    assert not (tmp_path / "runs").exists()
