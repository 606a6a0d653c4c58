"""Reading and writing weights: safetensors of our own, `.pth` of the original code, torchvision's ImageNet files."""

from __future__ import annotations

import hashlib
import json
import pickle
import urllib.error
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from samdeploy.errors import WeightsError, first_line
from samdeploy.files import write_atomic
from samdeploy.models.resnet import SamResNet

# Key of the metadata of our own files.  A run's weights have no manifest that would notice a flipped bit.
_HASH = "samdeploy_sha256"

# The original work starts from torchvision's V1 weights, not from the better V2.  The addresses stand here because
# importing torchvision's models costs two seconds; the name of each file ends in the beginning of its SHA-256.
_IMAGENET = {
    "sam-resnet18": "https://download.pytorch.org/models/resnet18-f37072fd.pth",
    "sam-resnet34": "https://download.pytorch.org/models/resnet34-b627a593.pth",
    "sam-resnet50": "https://download.pytorch.org/models/resnet50-0676ba61.pth",
    "sam-resnet101": "https://download.pytorch.org/models/resnet101-63fe2227.pth",
    "sam-resnet152": "https://download.pytorch.org/models/resnet152-394f9c45.pth",
}


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the state dict as safetensors, whole or not at all, with a hash of the tensors in its metadata."""
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    write_atomic(path, safetensors.torch.save(state, metadata={_HASH: _hash(state)}))


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a `.safetensors` file, or a `.pth`/`.pt` state dict such as the original code saved.

    Raises:
        WeightsError: the file is missing or unreadable, or keys or shapes differ; all differences are listed.
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
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise WeightsError(f"{path}: {type(loaded).__name__} found, a state dict (name -> tensor) expected")
    # torch.nn.DataParallel puts this before every key.
    return {str(key).removeprefix("module."): value for key, value in loaded.items()}


def load_state(model: nn.Module, state: Mapping[str, torch.Tensor], source: str) -> None:
    """Copy `state` into `model`; keys and shapes must be the same on both sides.

    Raises:
        WeightsError: lists every missing, unexpected and misshapen key.
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
    problems = [
        f"{len(keys)} {kind}: {', '.join(keys)}"
        for kind, keys in (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
        if keys
    ]
    if problems:
        raise WeightsError(
            f"{source}: does not fit the architecture; {'; '.join(problems)}. "
            "Check arch, gate and the number of classes"
        )
    model.load_state_dict(dict(state), strict=False)


def load_imagenet(model: SamResNet, arch: str, path: Path | None = None) -> None:
    """Start the encoder from torchvision's ImageNet V1 weights; attention and head keep their fresh start.

    Args:
        model: gets every key of torchvision's network but the head's.
        arch: decides which file is fetched.
        path: a local copy of torchvision's file; None fetches it once into torch's own cache, with a progress
            bar, and checks the SHA-256 prefix in its name.

    Raises:
        WeightsError: the file cannot be had (says where to put it), is damaged, or does not fit.
    """
    source = path if path is not None else _imagenet_file(arch)
    state = {key: value for key, value in read_state(source).items() if not key.startswith("fc.")}
    fresh = {key: value for key, value in model.state_dict().items() if key.startswith("fc.") or ".sl." in key}
    load_state(model, {**state, **fresh}, str(source))


def _imagenet_file(arch: str) -> Path:
    url = _IMAGENET[arch]
    name = url.rsplit("/", 1)[-1]
    target = Path(torch.hub.get_dir(), "checkpoints", name)
    prefix = name.removesuffix(".pth").rsplit("-", 1)[-1]
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(target), hash_prefix=prefix, progress=True)
        except (urllib.error.URLError, OSError, RuntimeError) as error:
            raise WeightsError(
                f"ImageNet weights {name} could not be fetched ({error}); download {url} elsewhere and put it at "
                f"{target}, or give its path: --set model.pretrained=PATH, or start without: --set "
                "model.pretrained=false"
            ) from None
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    if not digest.startswith(prefix):
        raise WeightsError(
            f"{target}: SHA-256 {digest[:8]}... found, {prefix}... expected; delete it and fetch it again"
        )
    return target
