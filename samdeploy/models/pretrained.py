"""The weights that a training starts from: torchvision's of ImageNet, or any state dict that holds the encoder."""

from __future__ import annotations

import hashlib
import urllib.error
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from samdeploy.bundle.manifest import MOST_BYTES, manifest_from_json
from samdeploy.bundle.names import MANIFEST, RUN_FILE, WEIGHTS_FILE
from samdeploy.errors import BundleError, WeightsError
from samdeploy.files import made_folder, read_json
from samdeploy.models.look_alike import look_alike
from samdeploy.models.sam_resnet.resnet import SamResNet
from samdeploy.models.weights import read_state, some
from samdeploy.runs.record import open_run

# The original work starts from torchvision's V1 weights, not from the better V2.  The addresses stand here because
# importing torchvision's models costs two seconds; the name of each file ends in the beginning of its SHA-256.
_IMAGENET = {
    "sam-resnet18": "https://download.pytorch.org/models/resnet18-f37072fd.pth",
    "sam-resnet34": "https://download.pytorch.org/models/resnet34-b627a593.pth",
    "sam-resnet50": "https://download.pytorch.org/models/resnet50-0676ba61.pth",
    "sam-resnet101": "https://download.pytorch.org/models/resnet101-63fe2227.pth",
    "sam-resnet152": "https://download.pytorch.org/models/resnet152-394f9c45.pth",
}
_HEAD, _ATTENTION, _COUNTER = "fc.", ".sl.", "num_batches_tracked"


@dataclass(frozen=True, slots=True)
class Pretrained:
    """Weights to start from, found to hold the encoder of an architecture.

    Attributes:
        source: the file.
        state: its tensors.
        classes, gate: of the network they were trained in; None where nothing beside the file says so.
    """

    source: Path
    state: Mapping[str, torch.Tensor]
    classes: tuple[str, ...] | None = None
    gate: str | None = None


def read_pretrained(arch: str, path: Path | None = None) -> Pretrained:
    """Read the weights that a network starts from, before anything else is done.

    Args:
        arch: decides which file is fetched, and what it must hold.
        path: a state dict, a run or a bundle; None fetches torchvision's ImageNet file once into torch's own cache,
            with a progress bar, and checks the SHA-256 prefix in its name.

    Raises:
        WeightsError: the file cannot be had, is damaged, or is of another architecture.
    """
    if path is None:
        path, classes, gate = _imagenet_file(arch), None, None
    else:
        path = path / WEIGHTS_FILE if path.is_dir() else path
        classes, gate = _trained_as(path.parent)
    state = read_state(path)
    with torch.device("meta"):  # shapes alone
        wanted = _encoder(SamResNet(arch, 1, "none").state_dict())
    missing = [key for key in wanted if key not in state]
    misshapen = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
    alike = look_alike(state)
    # A deeper network holds all of a shallower one's tensors.
    is_another = alike.removeprefix("sam-") not in ("", arch.removeprefix("sam-"))
    if missing or misshapen or is_another:
        raise WeightsError(_other_architecture(path, state, arch, [*missing, *misshapen], len(wanted)))
    return Pretrained(path, state, classes, gate)


def load_pretrained(model: SamResNet, pretrained: Pretrained, classes: Sequence[str]) -> str:
    """Copy the encoder, and attention and head where they fit; what does not keeps its fresh start.

    Args:
        classes: that `model` is to tell apart.

    Returns:
        What was loaded, what was skipped, and why.
    """
    state, own = pretrained.state, model.state_dict()
    taken = {key: state[key] for key in _encoder(own)}
    taken |= {key: state[key] for key in own if key.endswith(_COUNTER) and key in state}
    loaded, skipped = [f"encoder ({len(_encoder(own))} tensors)"], []
    attention = [key for key in own if _ATTENTION in key]
    for name, keys, reason in (
        ("attention", attention, _why_no_attention(pretrained, own, attention, model.gate)),
        ("head", [key for key in own if key.startswith(_HEAD)], _why_no_head(pretrained, own, classes)),
    ):
        if not reason:
            taken |= {key: state[key] for key in keys}
            loaded += [name] if keys else []
        else:
            skipped.append(f"{name}: {reason}")
    known = (*taken, *(key for key in state if key.startswith(_HEAD) or _ATTENTION in key or key.endswith(_COUNTER)))
    if strangers := [key for key in state if key not in known]:
        skipped.append(f"{len(strangers)} tensors that {model.arch} does not have: {some(strangers)}")
    model.load_state_dict(taken, strict=False)
    left = f"; starts fresh or not used: {'; '.join(skipped)}" if skipped else ""
    return f"pretrained weights {pretrained.source}: loaded {', '.join(loaded)}{left}"


def _encoder(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without attention and head, and without the counters that torchvision's older files lack."""
    return {
        key: value
        for key, value in state.items()
        if not key.startswith(_HEAD) and _ATTENTION not in key and not key.endswith(_COUNTER)
    }


def _why_no_attention(pretrained: Pretrained, own: Mapping[str, torch.Tensor], keys: Sequence[str], gate: str) -> str:
    if any(key not in pretrained.state for key in keys):
        return "not in the file"
    if any(pretrained.state[key].shape != own[key].shape for key in keys):
        return "its shapes differ"
    if keys and pretrained.gate not in (None, gate):
        return f"trained with the gate {pretrained.gate}, not {gate}"
    return ""


def _why_no_head(pretrained: Pretrained, own: Mapping[str, torch.Tensor], classes: Sequence[str]) -> str:
    state, keys = pretrained.state, [key for key in own if key.startswith(_HEAD)]
    theirs = [key for key in state if key.startswith(_HEAD)]
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


def _trained_as(folder: Path) -> tuple[tuple[str, ...] | None, str | None]:
    """Classes and gate, where a run or a bundle lies around the weights."""
    try:
        if (folder / RUN_FILE).is_file():
            record = open_run(folder)
            return record.classes, str(record.options.get("gate"))
        if (folder / MANIFEST).is_file():
            manifest = folder / MANIFEST
            spec = manifest_from_json(read_json(manifest, "bundle", max_bytes=MOST_BYTES), str(manifest)).spec
            return spec.classes, str(spec.options.get("gate"))
    except BundleError:  # damaged, or of another version: then its weights are a file like others
        pass
    return None, None


def _other_architecture(
    path: Path, state: Mapping[str, torch.Tensor], arch: str, wrong: Sequence[str], count: int
) -> str:
    alike = look_alike(state)
    what = f"this looks like {alike}" if alike else f"its first tensors are {some(list(state))}"
    name = f"sam-{alike.removeprefix('sam-')}"
    cure = f"Give --set model.arch={name}, or weights of {arch.removeprefix('sam-')}"
    if name not in _IMAGENET or name == arch:
        cure = f"Weights of {arch.removeprefix('sam-')} or of {arch} expected"
    if wrong:
        what += f". {len(wrong)} of {count} tensors of the encoder are missing or of another shape, such as {wrong[0]}"
    return f"model.pretrained: {path} does not fit {arch}: {what}. {cure}"


def _imagenet_file(arch: str) -> Path:
    url = _IMAGENET[arch]
    name = url.rsplit("/", 1)[-1]
    target = Path(torch.hub.get_dir(), "checkpoints", name)
    prefix = name.removesuffix(".pth").rsplit("-", 1)[-1]
    if not target.is_file():
        try:
            with made_folder(target.parent):
                torch.hub.download_url_to_file(url, str(target), hash_prefix=prefix, progress=True)
        except (urllib.error.URLError, OSError, RuntimeError) as error:
            raise WeightsError(
                f"the ImageNet weights {name} could not be fetched ({error}). Start without them: --set "
                f"model.pretrained=false; or download {url} elsewhere and give --set model.pretrained=FILE, or put it "
                f"at {target}"
            ) from None
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    if not digest.startswith(prefix):
        raise WeightsError(
            f"{target}: SHA-256 {digest[:8]}... found, {prefix}... expected; delete it and fetch it again"
        )
    return target
