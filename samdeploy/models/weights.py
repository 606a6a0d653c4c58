"""Reading and writing weights: safetensors of our own, `.pth` state dicts of the original code and of others."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from samdeploy.errors import WeightsError
from samdeploy.files import write_atomic
from samdeploy.models.checkpoint import Checkpoint, unpickled, without_prefixes
from samdeploy.models.look_alike import look_alike

# Key of the metadata of our own files.  A run's weights have no manifest that would notice a flipped bit.
_HASH = "samdeploy_sha256"

# Of weights; a cast of others, such as int8 without its scales, would be another network.
_FLOATS = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
_SHOWN = 3


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the state dict as safetensors, whole or not at all, with a hash of the tensors in its metadata."""
    state = separate(model.state_dict())
    write_atomic(path, safetensors.torch.save(state, metadata={_HASH: _hash(state)}))


def separate(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors on the CPU, each with memory of its own: safetensors refuses those that share it, as tied ones do."""
    found, seen = {}, set()
    for key, value in state.items():
        tensor = value.detach().cpu().contiguous()
        memory = tensor.untyped_storage().data_ptr()
        found[key] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return found


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a `.safetensors` file, or a `.pth`/`.pt` state dict such as the original code saved.

    Raises:
        WeightsError: the file is missing or unreadable, or keys or shapes differ.
    """
    load_state(model, read_state(path), str(path))


def state_dict_from_bytes(data: bytes, source: str = "weights") -> dict[str, torch.Tensor]:
    """The state dict in the bytes of a safetensors file; `source` names it in errors.

    Raises:
        WeightsError: the bytes are no safetensors file, or not the tensors that `save_weights` wrote.
    """
    try:
        state = safetensors.torch.load(data)
    except SafetensorError as error:
        raise WeightsError(f"{source}: truncated, or not a safetensors file ({error}); copy it again") from None
    # A file starts with the length of its JSON header, 8 bytes, little-endian.
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    expected = header.get("__metadata__", {}).get(_HASH)
    if expected is not None and expected != _hash(state):
        raise WeightsError(f"{source}: the tensors are not those that were saved; the file was damaged, restore it")
    return state


def _hash(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of all tensors, in the order of their names."""
    digest = hashlib.sha256()
    for key, value in sorted(state.items()):
        digest.update(f"{key} {value.dtype} {list(value.shape)};".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_checkpoint(path: Path) -> Checkpoint:
    """The state dict in a weight file, and what lies beside it; no code in the file runs.

    Raises:
        WeightsError: missing, damaged, or no state dict.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; expected weights as .safetensors or .pth")
    if _is_safetensors(path):
        return without_prefixes(state_dict_from_bytes(path.read_bytes(), str(path)))
    return unpickled(path)


def _is_safetensors(path: Path) -> bool:
    """By the first bytes, whatever the name: the length of a JSON header, 8 bytes, and its brace; no pickle has that.

    What is neither goes by its name.
    """
    with path.open("rb") as file:
        start = file.read(9)
    is_pickle = start.startswith((b"PK", b"\x80"))
    return start[8:] == b"{" or (path.suffix.lower() == ".safetensors" and not is_pickle)


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The state dict alone; see `read_checkpoint`."""
    return read_checkpoint(path).state


def load_state(model: nn.Module, state: Mapping[str, torch.Tensor], source: str) -> None:
    """Copy `state` into `model`; keys and shapes must be the same on both sides.

    Raises:
        WeightsError: counts missing, unexpected and misshapen keys, and says whose weights they look like; or a tensor
            of floats that is none.
    """
    wanted = model.state_dict()
    # torchvision's older files lack this counter, which inference never reads.
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in wanted]
    misshapen = [
        f"{key} {list(state[key].shape)} (expected {list(wanted[key].shape)})"
        for key in wanted
        # An empty tensor stands for a file, which may be of any length.
        if key in state and state[key].shape != wanted[key].shape and wanted[key].numel()
    ]
    if missing or unexpected or misshapen:
        kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
        counts = "; ".join(f"{len(keys)} {kind}: {some(keys)}" for kind, keys in kinds if keys)
        alike, own = look_alike(state), look_alike(wanted)
        if alike and alike != own:
            raise WeightsError(
                f"{source}: does not fit {own or 'the architecture'}; this looks like {alike} ({counts})"
            )
        cure = "Check arch, its options and the number of classes"
        if misshapen and all(is_of_size(entry.partition(" ")[0]) for entry in misshapen):
            cure = "These weights are of images of another size: give it with --size PIXELS"
        raise WeightsError(f"{source}: does not fit the architecture; {counts}. {cure}")
    if odd := next((key for key in wanted if key in state and not _is_plain(state[key], wanted[key])), None):
        found = str(state[odd].dtype if state[odd].layout == torch.strided else state[odd].layout)
        raise WeightsError(
            f"{source}: {odd} is {'without numbers' if state[odd].is_meta else found.removeprefix('torch.')}; dense "
            "float16, bfloat16, float32 or float64 expected, as training leaves them"
        )
    # Some of torchvision's networks ask for the version of their layout, which files of weights do not hold.
    complete = OrderedDict(state)
    complete._metadata = model.state_dict()._metadata  # type: ignore[attr-defined]
    model.load_state_dict(complete, strict=False)


def is_of_size(key: str) -> bool:
    """Whether a tensor of this name has a shape that goes by the size of images: embeddings of positions."""
    return any(word in key for word in ("pos_embed", "relative_position", "position_embedding", "attn_mask"))


def _is_plain(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    is_dense = found.layout == torch.strided and not found.is_meta
    return is_dense and (found.dtype in _FLOATS or not wanted.is_floating_point())


def some(keys: Sequence[str]) -> str:
    """The first keys of a long list.

    >>> some(["a", "b", "c", "d"])
    'a, b, c and 1 more'
    """
    return ", ".join(keys[:_SHOWN]) + (f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else "")
