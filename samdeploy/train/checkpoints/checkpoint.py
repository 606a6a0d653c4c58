"""Checkpoint files: everything that a training needs to go on exactly where it was.

::

    <run>/checkpoints/
        last.safetensors       the newest
        previous.safetensors   the one before, should the newest turn out damaged
        next.safetensors       only while it takes the place of last
        best-<epoch>.safetensors   weights of the best epoch that one of the above names

Each is one safetensors file, so nothing in it can run.  Its metadata holds the facts (epoch, step, history, recipe) as
JSON, and a SHA-256 over facts and tensors.  A new file is complete on disk before an old one loses its name: a kill or
a full disk at any moment leaves a good one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from samdeploy.bundle.names import RECIPE_FILE
from samdeploy.errors import WeightsError
from samdeploy.files import sync_folder, write_atomic
from samdeploy.models.weights import separate

FOLDER = "checkpoints"
NEXT, LAST, PREVIOUS = "next.safetensors", "last.safetensors", "previous.safetensors"
NEWEST_FIRST = (NEXT, LAST, PREVIOUS)

FORMAT = "samdeploy-checkpoint-1"
_FORMAT, _FACTS, _HASH = "format", "facts", "sha256"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One moment of a training.

    Attributes:
        tensors: weights, optimiser and the like, on the CPU.
        facts: the rest, as JSON knows it.
    """

    tensors: Mapping[str, torch.Tensor]
    facts: Mapping[str, Any]

    def part(self, name: str) -> dict[str, torch.Tensor]:
        """The tensors called "<name>.<key>", by key."""
        prefix = f"{name}."
        return {key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)}


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> int:
    """Make `checkpoint` the last one in `folder`, and the last one the previous.

    Returns:
        The bytes written.

    Raises:
        OSError: the disk is full, or the folder may not be written to; the checkpoints before are untouched.
    """
    folder.mkdir(exist_ok=True)
    data = encode(checkpoint)
    write_atomic(folder / NEXT, data)
    promote(folder)
    return len(data)


def promote(folder: Path) -> None:
    """Give a complete next file its place; the second half of writing, which a kill may have left undone."""
    if (folder / NEXT).is_file():
        if (folder / LAST).is_file():
            (folder / LAST).replace(folder / PREVIOUS)
        (folder / NEXT).replace(folder / LAST)
        sync_folder(folder)


def read_checkpoint(folder: Path, tell: Callable[[str], None]) -> Checkpoint:
    """The newest checkpoint in `folder` that is whole.

    Args:
        folder: `<run>/checkpoints`.
        tell: is given a sentence about each damaged file that was passed over.

    Raises:
        WeightsError: there is none, or all are damaged.
    """
    problems = []
    for name in NEWEST_FIRST:
        path = folder / name
        if not path.is_file():
            continue
        try:
            checkpoint = decode(path.read_bytes(), str(path))
        except WeightsError as error:
            problems.append(str(error))
            continue
        if name != NEXT:
            for problem in problems:
                tell(f"{problem}; going on from {name}, the one before")
        if problems:
            _forget_damaged(folder, name)
        return checkpoint
    if problems:
        raise WeightsError(
            f"{'; '.join(problems)}; no whole checkpoint is left, so train anew: samdeploy train "
            f"{folder.parent / RECIPE_FILE}"
        )
    raise WeightsError(
        f"{folder}: holds no checkpoint; nothing can be resumed here, train anew: samdeploy train "
        f"{folder.parent / RECIPE_FILE}"
    )


def _forget_damaged(folder: Path, good: str) -> None:
    """Remove the damaged files that are newer than the good one, lest the next write gives them its place."""
    for name in NEWEST_FIRST[: NEWEST_FIRST.index(good)]:
        (folder / name).unlink(missing_ok=True)


def encode(checkpoint: Checkpoint) -> bytes:
    """The bytes of a checkpoint file."""
    facts = json.dumps(checkpoint.facts, ensure_ascii=False, sort_keys=True, allow_nan=False)
    tensors = separate(checkpoint.tensors)
    metadata = {_FORMAT: FORMAT, _FACTS: facts, _HASH: _digest(facts, tensors)}
    return safetensors.torch.save(tensors, metadata=metadata)


def decode(data: bytes, source: str) -> Checkpoint:
    """What `encode` made.

    Raises:
        WeightsError: the bytes are damaged, or no checkpoint.
    """
    try:
        tensors = safetensors.torch.load(data)
    except SafetensorError as error:
        raise WeightsError(f"checkpoint {source}: damaged or cut short ({error})") from None
    # A file starts with the length of its JSON header, 8 bytes, little-endian.
    metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
    if metadata.get(_FORMAT) != FORMAT:
        raise WeightsError(f"checkpoint {source}: format {metadata.get(_FORMAT)!r} found, {FORMAT!r} expected")
    facts = metadata.get(_FACTS, "")
    if metadata.get(_HASH) != _digest(facts, tensors):
        raise WeightsError(f"checkpoint {source}: damaged, its content is not what was written")
    return Checkpoint(tensors, json.loads(facts))


def clear_temporary(folder: Path) -> None:
    """Remove what a kill during a write left; no other process may be training into `folder`."""
    for path in folder.glob(".*.safetensors.*"):
        path.unlink(missing_ok=True)


def _digest(facts: str, tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(facts.encode())
    for key, value in sorted(tensors.items()):
        digest.update(f"{key} {value.dtype} {list(value.shape)};".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
