"""The weights that a training starts from: those that were published, or any state dict of the same architecture."""

from __future__ import annotations

import functools
import hashlib
import urllib.error
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import nn

from samdeploy.bundle.manifest import MOST_BYTES, manifest_from_json
from samdeploy.bundle.names import MANIFEST, RUN_FILE, WEIGHTS_FILE
from samdeploy.bundle.spec import OptionValue
from samdeploy.errors import BundleError, WeightsError
from samdeploy.files import made_folder, read_json
from samdeploy.models.family import NotFetched, Part
from samdeploy.models.look_alike import look_alike
from samdeploy.models.registry import build_model, family_of
from samdeploy.models.weights import is_of_size, read_state, some
from samdeploy.runs.record import open_run

_TRAIN_OTHERWISE = (
    "give a file with --set model.pretrained=FILE, or start from random weights: --set model.pretrained=false"
)
NO_OPTIONS: Mapping[str, OptionValue] = MappingProxyType({})
_COUNTER = "num_batches_tracked"  # that torchvision's older files lack, and inference never reads
# A file with more other tensors than this share of a network's own holds a larger network.
_MOST_OTHERS = 0.1


@dataclass(frozen=True, slots=True)
class Pretrained:
    """Weights to start from, found to hold the encoder of an architecture: all but its optional parts.

    Attributes:
        arch: what they are to start.
        source: the file, or what else they were taken from, for people.
        state: its tensors.
        classes, options: of the network they were trained in; None where nothing beside the file says so.
    """

    arch: str
    source: str
    state: Mapping[str, torch.Tensor]
    classes: tuple[str, ...] | None = None
    options: Mapping[str, OptionValue] | None = None


def read_pretrained(arch: str, path: Path | None = None) -> Pretrained:
    """Read the weights that a network starts from, before anything else is done.

    Args:
        arch: decides which file is fetched, and what it must hold.
        path: a state dict, a run or a bundle; None fetches the published file once into torch's own cache, with a
            progress bar, and checks the SHA-256 prefix in its name.

    Raises:
        WeightsError: the file cannot be had, is damaged, or is of another architecture.
    """
    if path is None:
        return published_weights(arch)
    path = path / WEIGHTS_FILE if path.is_dir() else path
    classes, options = _trained_as(path.parent)
    return _checked(Pretrained(arch, str(path), read_state(path), classes, options))


def published_weights(arch: str, otherwise: str = _TRAIN_OTHERWISE) -> Pretrained:
    """The published weights of an architecture; see `read_pretrained`.

    Args:
        otherwise: what to do where they cannot be had.
    """
    family = family_of(arch)
    if family.published_state is None and family.weights_url is None:
        raise WeightsError(f"there are no published weights of {arch}; {otherwise}")
    try:
        if family.published_state is not None:
            return _checked(Pretrained(arch, f"published for {arch}", family.published_state(arch)))
        path = _published_file(arch)
    except NotFetched as error:
        raise WeightsError(f"{error}, and {otherwise}") from None
    return _checked(Pretrained(arch, str(path), read_state(path)))


def _checked(found: Pretrained) -> Pretrained:
    """Weights that hold the encoder of their architecture.

    Raises:
        WeightsError: they hold another one.
    """
    arch, state = found.arch, found.state
    own, parts = tensor_shapes(arch, 1), _parts(arch)
    wanted = {key: shape for key, shape in own.items() if _part_of(key, parts) is None}
    wrong = [key for key in wanted if key not in state]
    # Those of positions go by the size of images, which `load_pretrained` knows.
    wrong += [key for key in wanted if key in state and state[key].shape != wanted[key] and not is_of_size(key)]
    others = [key for key in state if key not in own and _part_of(key, parts) is None and not key.endswith(_COUNTER)]
    if wrong or len(others) > _MOST_OTHERS * len(own):
        raise WeightsError(_other_architecture(found.source, state, arch, wrong, len(wanted)))
    return found


def head_classes(
    arch: str, state: Mapping[str, torch.Tensor], source: str, options: Mapping[str, OptionValue] = NO_OPTIONS
) -> int:
    """How many classes the head in a state dict of a network with these options tells apart.

    Args:
        source: where the state dict is from, for errors.

    Raises:
        WeightsError: it holds no head of this architecture.
    """
    one, two = tensor_shapes(arch, 1, options), tensor_shapes(arch, 2, options)
    head = [key for key, shape in one.items() if two[key] != shape]
    found = [key for key in head if key in state]
    if not found or len(state[found[0]].shape) != len(one[found[0]]):
        alike = look_alike(state)
        looks = f"; this looks like {alike}" if alike else "; check --arch"
        shared = sum(key in state for key in one)
        raise WeightsError(
            f"{source}: no head of {arch} ({some(head)}), and {shared} of its {len(one)} tensors found{looks}"
        )
    return int(state[found[0]].shape[0])


def is_of_head(arch: str, key: str) -> bool:
    """Whether a tensor of this name, as in the state dict, belongs to the head of an architecture."""
    return _parts(arch)[-1].holds(key)


def load_pretrained(
    model: nn.Module, pretrained: Pretrained, classes: Sequence[str], options: Mapping[str, OptionValue]
) -> str:
    """Copy the encoder, and the other parts where they fit; what does not keeps its fresh start.

    Args:
        model: a network of `pretrained.arch`.
        classes: that `model` is to tell apart.
        options: that it was built with.

    Returns:
        What was loaded, what was skipped, and why.

    Raises:
        WeightsError: they are of images of another size.
    """
    state, own, parts = pretrained.state, model.state_dict(), _parts(pretrained.arch)
    encoder = [key for key in own if _part_of(key, parts) is None and not key.endswith(_COUNTER)]
    taken = {key: state[key] for key in own if key in encoder or (key.endswith(_COUNTER) and key in state)}
    loaded, skipped = [f"encoder ({len(encoder)} tensors)"], []
    for part in parts:
        keys = [key for key in own if part.holds(key)]
        if part is parts[-1]:
            reason = _why_no_head(part, keys, pretrained, own, classes)
        else:
            reason = _why_not(part, keys, pretrained, own, options)
        if reason:
            skipped.append(f"{part.name}: {reason}")
            if part is parts[-1]:
                taken |= {key: _calm(own[key]) for key in keys}
        elif keys:
            taken |= {key: state[key] for key in keys}
            loaded.append(part.name)
    others = [key for key in state if key not in taken and _part_of(key, parts) is None and not key.endswith(_COUNTER)]
    if others:
        skipped.append(f"{len(others)} tensors that {pretrained.arch} does not have: {some(others)}")
    if wrong := [key for key in taken if taken[key].shape != own[key].shape]:
        raise WeightsError(
            f"model.pretrained: {pretrained.source} is of images of another size: {wrong[0]} is "
            f"{list(taken[wrong[0]].shape)}, {list(own[wrong[0]].shape)} expected. Give its size: --size PIXELS --set "
            "model.image_side=PIXELS"
        )
    model.load_state_dict(taken, strict=False)
    left = f"; starts fresh or not used: {'; '.join(skipped)}" if skipped else ""
    return f"pretrained weights {pretrained.source}: loaded {', '.join(loaded)}{left}"


def _calm(weight: torch.Tensor) -> torch.Tensor:
    """A fresh head's weight, [K, C, ...] or [K], no larger than `nn.Linear` draws it: within 1 / sqrt(C).

    That of networks from TensorFlow goes up to 1 / sqrt(K).  With few classes its first gradients are so large that
    they undo what the encoder was loaded for: 200 photographs in 6 classes ended at 43 % instead of 64 %.
    """
    if weight.ndim < 2:
        return weight
    bound, largest = weight[0].numel() ** -0.5, float(weight.abs().amax())
    return weight * (bound / largest) if largest > bound else weight


def sketched(arch: str, classes: int, options: Mapping[str, OptionValue] = NO_OPTIONS) -> nn.Module:
    """A network to look at, without memory for its weights where that is possible."""
    try:
        with torch.device("meta"):
            return build_model(arch, classes, options)
    except NotImplementedError:  # some networks compute their widths in tensors
        with torch.random.fork_rng(devices=[]):
            return build_model(arch, classes, options)


def tensor_shapes(arch: str, classes: int, options: Mapping[str, OptionValue] = NO_OPTIONS) -> dict[str, torch.Size]:
    """Of the tensors of a network, without its counters."""
    state = sketched(arch, classes, options).state_dict()
    return {key: value.shape for key, value in state.items() if not key.endswith(_COUNTER)}


@functools.cache
def _parts(arch: str) -> Sequence[Part]:
    """The parts of a network that may start fresh, the head last."""
    if (parts := family_of(arch).parts) is not None:
        return parts
    one, two = tensor_shapes(arch, 1), tensor_shapes(arch, 2)
    head = {key for key, shape in one.items() if two[key] != shape}
    return (Part("head", head.__contains__),)


def _part_of(key: str, parts: Sequence[Part]) -> Part | None:
    return next((part for part in parts if part.holds(key)), None)


def _why_not(
    part: Part,
    keys: Sequence[str],
    pretrained: Pretrained,
    own: Mapping[str, torch.Tensor],
    options: Mapping[str, OptionValue],
) -> str:
    if any(key not in pretrained.state for key in keys):
        return "not in the file"
    if any(pretrained.state[key].shape != own[key].shape for key in keys):
        return "its shapes differ"
    trained = options if pretrained.options is None else pretrained.options
    for name in part.options:
        if keys and trained.get(name) != options[name]:
            return f"trained with the {name} {trained.get(name)}, not {options[name]}"
    return ""


def _why_no_head(
    part: Part,
    keys: Sequence[str],
    pretrained: Pretrained,
    own: Mapping[str, torch.Tensor],
    classes: Sequence[str],
) -> str:
    state, theirs = pretrained.state, [key for key in pretrained.state if part.holds(key)]
    if not theirs:
        return "not in the file"
    count = state[theirs[-1]].shape[0]
    if count != len(classes):
        return f"{count:,} classes in the file, {len(classes):,} in the data"
    if set(theirs) != set(keys) or any(state[key].shape != own[key].shape for key in keys):
        return "its layers are others"
    if pretrained.classes is not None and pretrained.classes != tuple(classes):
        place = next(i for i, (one, two) in enumerate(zip(pretrained.classes, classes, strict=True)) if one != two)
        return f"other classes; the {place + 1}. is {pretrained.classes[place]!r} there, {classes[place]!r} in the data"
    return ""


def _trained_as(folder: Path) -> tuple[tuple[str, ...] | None, Mapping[str, OptionValue] | None]:
    """Classes and options, where a run or a bundle lies around the weights."""
    try:
        if (folder / RUN_FILE).is_file():
            record = open_run(folder)
            return record.classes, record.options
        if (folder / MANIFEST).is_file():
            manifest = folder / MANIFEST
            spec = manifest_from_json(read_json(manifest, "bundle", max_bytes=MOST_BYTES), str(manifest)).spec
            return spec.classes, spec.options
    except BundleError:  # damaged, or of another version: then its weights are a file like others
        pass
    return None, None


def _other_architecture(
    source: str, state: Mapping[str, torch.Tensor], arch: str, wrong: Sequence[str], count: int
) -> str:
    family, alike = family_of(arch), look_alike(state)
    what = f"this looks like {alike}" if alike else f"its first tensors are {some(list(state))}"
    prefixes = (f"{family.prefix}:", f"{family.prefix}-")
    plain, alike_plain = (_without(name, prefixes) for name in (arch, alike))
    known = [prefix + alike_plain for prefix in prefixes if prefix + alike_plain in family.architectures()]
    cure = f"Weights of {plain} or of {arch} expected"
    if known and known[0] != arch:
        cure = f"Give --set model.arch={known[0]}, or weights of {plain}"
    if wrong:
        what += f". {len(wrong)} of {count} tensors of the encoder are missing or of another shape, such as {wrong[0]}"
    return f"model.pretrained: {source} does not fit {arch}: {what}. {cure}"


def _without(name: str, prefixes: Sequence[str]) -> str:
    return next((name.removeprefix(prefix) for prefix in prefixes if name.startswith(prefix)), name)


def _published_file(arch: str) -> Path:
    weights_url = family_of(arch).weights_url
    assert weights_url is not None  # published_weights asked
    url = weights_url(arch)
    name = url.rsplit("/", 1)[-1]
    target = Path(torch.hub.get_dir(), "checkpoints", name)
    prefix = name.removesuffix(".pth").rsplit("-", 1)[-1]
    if not target.is_file():
        try:
            with made_folder(target.parent):
                torch.hub.download_url_to_file(url, str(target), hash_prefix=prefix, progress=True)
        except (urllib.error.URLError, OSError, RuntimeError) as error:
            raise NotFetched(
                f"the published weights {name} could not be fetched ({error}). Download {url} on another machine"
            ) from None
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    if not digest.startswith(prefix):
        raise WeightsError(
            f"{target}: SHA-256 {digest[:8]}... found, {prefix}... expected; delete it and fetch it again"
        )
    return target
