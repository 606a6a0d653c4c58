"""Reading and writing weights: safetensors of our own, `.pth` state dicts of the original code and of others."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from samdeploy.errors import WeightsError, first_line
from samdeploy.files import write_atomic
from samdeploy.models.look_alike import look_alike

# Key of the metadata of our own files.  A run's weights have no manifest that would notice a flipped bit.
_HASH = "samdeploy_sha256"

# Where training scripts put the state dict in a checkpoint, and what wrappers of a network put before every key.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "model.", "net.", "backbone.", "encoder.")
_SHOWN = 3


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the state dict as safetensors, whole or not at all, with a hash of the tensors in its metadata."""
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    write_atomic(path, safetensors.torch.save(state, metadata={_HASH: _hash(state)}))


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
        raise WeightsError(f"{source}: not a complete safetensors file ({error})") from None
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


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The state dict in a weight file; pickles are read with `weights_only=True`, so no code in them runs."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; expected weights as .safetensors or .pth")
    if path.suffix == ".safetensors":
        return state_dict_from_bytes(path.read_bytes(), str(path))
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise WeightsError(
            f"{path}: is damaged, or holds more than tensors, such as code, which is never run; "
            "expected a state dict, save it with torch.save(model.state_dict(), path)"
        ) from None
    except Exception as error:  # torch's unpickler fails on damage with whatever its byte code runs into
        reason = first_line(error)
        raise WeightsError(f"{path}: damaged, truncated or not a weight file ({reason})") from None
    for key in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise WeightsError(f"{path}: {type(loaded).__name__} found, a state dict (name -> tensor) expected")
    state = {str(key): value for key, value in loaded.items()}
    for prefix in _PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def load_state(model: nn.Module, state: Mapping[str, torch.Tensor], source: str) -> None:
    """Copy `state` into `model`; keys and shapes must be the same on both sides.

    Raises:
        WeightsError: counts missing, unexpected and misshapen keys, and says whose weights they look like.
    """
    wanted = model.state_dict()
    # torchvision's older files lack this counter, which inference never reads.
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in wanted]
    misshapen = [
        f"{key} {list(state[key].shape)} (expected {list(wanted[key].shape)})"
        for key in wanted
        if key in state and state[key].shape != wanted[key].shape
    ]
    if missing or unexpected or misshapen:
        kinds = (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
        counts = "; ".join(f"{len(keys)} {kind}: {some(keys)}" for kind, keys in kinds if keys)
        alike, own = look_alike(state), look_alike(wanted)
        if own and alike and alike != own:
            raise WeightsError(f"{source}: does not fit {own}; this looks like {alike}: {counts}")
        raise WeightsError(
            f"{source}: does not fit the architecture; {counts}. Check arch, its options and the number of classes"
        )
    model.load_state_dict(dict(state), strict=False)


def some(keys: Sequence[str]) -> str:
    """The first keys of a long list.

    >>> some(["a", "b", "c", "d"])
    'a, b, c and 1 more'
    """
    return ", ".join(keys[:_SHOWN]) + (f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else "")
