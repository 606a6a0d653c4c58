"""Checkpoint files: what comes back, what is refused, and which one counts."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from samdeploy.errors import WeightsError
from samdeploy.train.checkpoints.checkpoint import Checkpoint, decode, encode, read_checkpoint, write_checkpoint


def made(step: int) -> Checkpoint:
    tensors = {
        "model.a": torch.full((2, 3), float(step)),
        "model.b": torch.tensor(step),
        "shuffle": torch.arange(4, dtype=torch.uint8),
    }
    return Checkpoint(tensors, {"step": step, "recipe": {"name": "Größe"}})


def ignore(_: str) -> None:
    raise AssertionError("nothing was damaged")


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    size = write_checkpoint(tmp_path / "c", made(3))
    found = read_checkpoint(tmp_path / "c", ignore)
    assert found.facts == made(3).facts
    assert size == (tmp_path / "c" / "last.safetensors").stat().st_size
    for key, value in made(3).tensors.items():
        assert torch.equal(found.tensors[key], value)
        assert found.tensors[key].dtype == value.dtype
    assert sorted(found.part("model")) == ["a", "b"]


def test_tensors_that_share_memory_come_back() -> None:
    weight = torch.arange(6.0)
    found = decode(encode(Checkpoint({"model.a": weight, "model.tied": weight, "model.part": weight[2:]}, {})), "c")
    assert torch.equal(found.tensors["model.tied"], weight) and torch.equal(found.tensors["model.part"], weight[2:])


def test_any_program_can_read_the_file_and_nothing_in_it_can_run(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, made(3))
    tensors = safetensors.torch.load_file(tmp_path / "last.safetensors")
    assert torch.equal(tensors["model.a"], torch.full((2, 3), 3.0))


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write_checkpoint(tmp_path, made(step))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.safetensors", "previous.safetensors"]
    assert decode((tmp_path / "previous.safetensors").read_bytes(), "it").facts["step"] == 2


@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "foreign", "facts"])
def test_a_damaged_one_is_passed_over_for_the_one_before(tmp_path: Path, damage: str) -> None:
    write_checkpoint(tmp_path, made(1))
    write_checkpoint(tmp_path, made(2))
    last = tmp_path / "last.safetensors"
    data = bytearray(last.read_bytes())
    if damage == "bit":
        data[-3] ^= 1
    elif damage == "cut":
        del data[-5:]
    elif damage == "empty":
        data.clear()
    elif damage == "facts":
        data = data.replace(b'\\"step\\": 2', b'\\"step\\": 7')
        assert data != last.read_bytes()
    else:
        data = bytearray(safetensors.torch.save({"a": torch.zeros(1)}))
    last.write_bytes(data)
    told: list[str] = []
    assert read_checkpoint(tmp_path, told.append).facts["step"] == 1
    assert len(told) == 1
    assert "last.safetensors" in told[0]
    assert told[0].endswith("going on from previous.safetensors, the one before")
    write_checkpoint(tmp_path, made(3))  # must not make the damaged one the previous
    assert decode((tmp_path / "previous.safetensors").read_bytes(), "it").facts["step"] == 1


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, made(1))
    write_checkpoint(tmp_path, made(2))
    (tmp_path / "last.safetensors").replace(tmp_path / "previous.safetensors")
    (tmp_path / "next.safetensors").write_bytes(encode(made(3)))
    assert read_checkpoint(tmp_path, ignore).facts["step"] == 3
    write_checkpoint(tmp_path, made(4))
    assert read_checkpoint(tmp_path, ignore).facts["step"] == 4


def test_none_left(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds no checkpoint; nothing can be resumed here"):
        read_checkpoint(tmp_path, ignore)
    (tmp_path / "last.safetensors").write_bytes(b"no checkpoint")
    with pytest.raises(WeightsError, match=r"last.safetensors: damaged or cut short .* no whole checkpoint is left"):
        read_checkpoint(tmp_path, ignore)


def test_facts_that_json_cannot_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode(Checkpoint({}, {"loss": float("nan")}))
