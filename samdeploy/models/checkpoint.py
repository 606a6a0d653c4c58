"""Checkpoints as training scripts leave them: where the weights are in them, and what else they say."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from samdeploy.errors import WeightsError
from samdeploy.models.recorded import Recorded, recorded

# Where scripts put the state dict.  Averaged weights come first: they are what such a script evaluates and publishes.
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
_ENTRIES = (*_AVERAGED, "state_dict", "model_state_dict", "model", "module", "net")
# What wrappers of a network (DataParallel, torch.compile, Lightning, ...) put before every name.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.", "encoder.")
# Where scripts put the names of the classes, and dictionaries beside the weights that may hold such an entry.
_CLASSES = ("classes", "class_names", "CLASSES", "class_to_idx")
_BESIDE = ("hyper_parameters", "meta", "args", "config")
# Words in names of averaged weights: "ema_model", "swa_state_dict", "ModelEMA"; and not "semantic".
_AVERAGES = frozenset({"ema", "swa", "averaged", "shadow"})
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_DEEPEST = 4
_CURE = "expected a state dict, save it with torch.save(model.state_dict(), path)"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A state dict and what lay around it.

    Attributes:
        state: the tensors; names without the prefixes that all of them shared.
        notes: what was taken and renamed, for people.
        arch: of the network as the script called it, "resnet50"; None if the file does not say.
        classes: names in the order of the logits; None if the file does not hold them.
        images: how the script prepared them.
    """

    state: dict[str, torch.Tensor]
    notes: tuple[str, ...] = ()
    arch: str | None = None
    classes: tuple[str, ...] | None = None
    images: Recorded = field(default_factory=Recorded)


def unpickled(path: Path) -> Checkpoint:
    """A checkpoint that torch.save wrote, read with `weights_only=True`, so that no code in it runs.

    Raises:
        WeightsError: damaged, or it holds no state dict.
    """
    loaded = _load(path)
    known = _state_in(loaded)
    if known is None:
        raise WeightsError(f"{path}: holds no weights (a {type(loaded).__name__} found); {_CURE}")
    place, found = known
    length = path.stat().st_size
    if large := next((key for key, value in found.items() if value.numel() * value.element_size() > length), None):
        raise WeightsError(f"{path}: {large} of {list(found[large].shape)} is larger than the file; {_CURE}")
    notes, others = [], {other: value for other, value in _like(found, loaded) if value is not found}
    if not is_averaged(place) and (better := next((key for key in others if _replaces(key, others[key], found)), "")):
        others[place], place, found = found, better, others.pop(better)
    if is_averaged(place):
        notes.append(f"averaged weights taken ({place!r})")
    if others:
        notes.append(f"other weights in the file, not taken: {', '.join(map(repr, others))}")
    around = loaded if found is not loaded and isinstance(loaded, Mapping) else {}
    images = recorded(around)
    if images.unclear:
        notes.append(
            f"its training prepared images with {images.unclear}, which is not taken: check --size, --resize, "
            "--filter, --mean, --std"
        )
    checkpoint = without_prefixes({str(key): value for key, value in found.items()})
    return Checkpoint(checkpoint.state, (*notes, *checkpoint.notes), _arch(around), _classes(around), images)


def _state_in(loaded: Any, depth: int = 0) -> tuple[str, Mapping[Any, Any]] | None:
    """Where a state dict is, "model.state_dict", and itself; a pickle can hold itself, so not at any depth."""
    if not isinstance(loaded, Mapping) or depth > _DEEPEST:
        return None
    if loaded and _is_state(loaded):
        return "", loaded
    for key in _ENTRIES:
        if found := _state_in(loaded.get(key), depth + 1):
            return f"{key}.{found[0]}".rstrip("."), found[1]
    return None


def _like(state: Mapping[Any, Any], loaded: Any) -> Iterator[tuple[str, Any]]:
    """All that holds most of a state dict's names, and averages without names, each with its place in the file."""
    names, seen, todo = _bare(state), set(), [("", loaded, 0)]
    for place, value, depth in todo:
        if id(value) in seen:
            continue
        seen.add(id(value))
        is_mapping = isinstance(value, Mapping)
        is_list = isinstance(value, list | tuple) and bool(value) and is_averaged(place)
        if (is_list and _is_state(dict(enumerate(value)))) or (
            is_mapping and len(names & _bare(value)) > len(names) / 2
        ):
            yield place, value
        elif is_mapping and depth <= _DEEPEST:
            todo += [(f"{place}.{key}".lstrip("."), inner, depth + 1) for key, inner in value.items()]


def _replaces(place: str, found: Any, state: Mapping[Any, Any]) -> bool:
    """Whether this is the whole network, averaged."""
    return is_averaged(place) and isinstance(found, Mapping) and _is_state(found) and _bare(state) <= _bare(found)


def _bare(found: Mapping[Any, Any]) -> set[str]:
    """Names of tensors without what wrappers put into them."""
    keys = (str(key).split(".") for key, value in found.items() if isinstance(value, torch.Tensor))
    return {".".join(part for part in parts if f"{part}." not in _PREFIXES) for parts in keys}


def without_prefixes(state: Mapping[str, torch.Tensor]) -> Checkpoint:
    """Names without what wrappers put before all of them."""
    removed, found = "", dict(state)
    while prefix := next(
        (prefix for prefix in _PREFIXES if found and all(key.startswith(prefix) for key in found)), ""
    ):
        found = {key.removeprefix(prefix): value for key, value in found.items()}
        removed += prefix
    return Checkpoint(found, (f"prefix {removed!r} removed",) if removed else ())


def is_averaged(name: str) -> bool:
    """Whether a name says that these weights are an average over the training."""
    return not _AVERAGES.isdisjoint(word.lower() for word in _WORDS.findall(name))


def _load(path: Path) -> Any:
    if _is_torchscript(path):
        raise WeightsError(
            f"{path}: is a TorchScript archive, which holds code; save its weights alone: "
            f"python -c \"import torch; torch.save(torch.jit.load('{path}').state_dict(), 'weights.pth')\""
        )
    try:
        # timm's and torchvision's scripts save their arguments; a Namespace is a plain bag of them.
        # Torch goes by the name of a path; a file without one is read as the pickle that it is.
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]), path.open("rb") as file:
            warnings.simplefilter("ignore")  # of a pickle that is not torch's, before it is refused
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        if names := _code_in(path):
            raise WeightsError(f"{path}: holds {names}: code, which is never run; {_CURE}") from None
        raise WeightsError(
            f"{path}: is damaged, or holds more than tensors, such as code, which is never run; {_CURE}"
        ) from None
    except Exception:  # torch's unpickler fails on damage with whatever its byte code runs into
        raise WeightsError(f"{path}: not a file of weights, or damaged; {_CURE}") from None


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return False


def _code_in(path: Path) -> str:
    """What a file names that is more than data: "torchvision.models.resnet.ResNet and 3 more"; "" if nobody knows."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # of damaged and of older files
        return ""
    names = sorted(set(names) - {"argparse.Namespace"}, key=lambda name: name.startswith(("torch.", "collections.")))
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}" if names else ""


def _is_state(found: Mapping[Any, Any]) -> bool:
    return all(isinstance(value, torch.Tensor) for value in found.values())


def _arch(around: Mapping[str, Any]) -> str | None:
    given = around.get("args")
    name = getattr(given, "model", None) if isinstance(given, argparse.Namespace) else around.get("arch")
    return name if isinstance(name, str) else None


def _classes(around: Mapping[str, Any]) -> tuple[str, ...] | None:
    beside = [vars(value) if isinstance(value, argparse.Namespace) else value for value in map(around.get, _BESIDE)]
    for entries in (around, *(value for value in beside if isinstance(value, Mapping))):
        for key in _CLASSES:
            names = entries.get(key)
            if isinstance(names, Mapping) and sorted(map(str, names.values())) == sorted(map(str, range(len(names)))):
                names = [name for _, name in sorted((int(value), name) for name, value in names.items())]
            if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
                return tuple(names)
    return None
