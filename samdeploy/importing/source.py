"""What a network is imported from: published weights, or a file."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from samdeploy.bundle.spec import OptionValue
from samdeploy.errors import InputError
from samdeploy.importing.early import EXPECTED, wrong_source
from samdeploy.importing.fitting import fitting
from samdeploy.models.checkpoint import Checkpoint
from samdeploy.models.look_alike import look_alike
from samdeploy.models.preprocessing import Given
from samdeploy.models.pretrained import head_classes, published_weights, tensor_shapes
from samdeploy.models.registry import FAMILIES, architectures_called, family_of, known_arch, options_for_size
from samdeploy.models.weights import is_of_size, read_checkpoint


@dataclass(frozen=True, slots=True)
class Source:
    """A network's weights, and what lies beside them.

    Attributes:
        arch: with its family's prefix.
        name: what to call the run.
        origin: where the weights are from, for people.
        state: the weights.
        num_classes: that the head tells apart.
        classes: names, where the file holds them.
        license: of published weights, or of those that the tag of `arch` names.
        is_published: the weights were fetched by the architecture's name.
        notes: what was taken, renamed and left of the file, for people.
        given: what the file says about its images.
        size: height and width, where it takes no others.
        options: of the architecture's family, where its size needs some.
    """

    arch: str
    name: str
    origin: str
    state: Mapping[str, torch.Tensor]
    num_classes: int
    classes: tuple[str, ...] | None = None
    license: str | None = None
    is_published: bool = False
    notes: tuple[str, ...] = ()
    given: Given = field(default_factory=Given)
    size: tuple[int, int] | None = None
    options: Mapping[str, OptionValue] = field(default_factory=dict)


def read_source(source: str, arch: str | None, options: Mapping[str, OptionValue], given: Given) -> Source:
    """The weights that `samdeploy import SOURCE` names.

    Args:
        source: an architecture with published weights, or a file.
        arch: whose weights the file holds.
        options: of the architecture's family.
        given: of the preprocessing, by the user.

    Raises:
        InputError: neither, or an unknown architecture.
        WeightsError: the weights cannot be had, or are not the architecture's.
    """
    path = Path(source)
    if source.partition(":")[0] in FAMILIES and not path.exists():
        if arch is not None:
            raise InputError(f"--arch {arch}: {source} names an architecture already; leave --arch out")
        _check_named(source)
        print(f"fetching the weights of {source}, unless the cache has them", file=sys.stderr)
        found = published_weights(source, f"import the file: samdeploy import FILE --arch {source}")
        name, license = source.partition(":")[2], family_of(source).license(source)
        count = head_classes(source, found.state, found.source, options)
        loaded = (_loaded(found.state),)
        return Source(source, name, found.source, found.state, count, None, license, is_published=True, notes=loaded)
    if any("\ud800" <= letter <= "\udfff" for letter in source):  # as Python writes bytes that are no UTF-8
        raise InputError(f"{source}: its name is no UTF-8, and could not be written into a record; rename it")
    if not path.is_file():
        raise InputError(f"{source}: {wrong_source(source) or _no_architecture(source)}")
    if path.suffix.lower() == ".onnx":
        return _whole_network(path, arch)
    if arch is not None:
        _check_named(arch)
    checkpoint = read_checkpoint(path)
    if arch is None:
        raise InputError(f"{source}: architecture not given. {_suggestion(checkpoint)}")
    said = _plain(checkpoint.arch or "")
    if said in _names(arch) and said != _plain(arch):
        known = f"{arch.partition(':')[0]}:{said}"
        raise InputError(f"{source}: is of {said}, as the file itself says, not of {arch}: --arch {known}")
    shapes, size = tensor_shapes(arch, 1, options), given.before(checkpoint.images.given)
    state, notes = fitting(checkpoint.state, shapes, source)
    sized = options_for_size(arch, options, size.height, size.width, misfits=not _size_fits(state, shapes))
    if sized != options and _size_fits(state, tensor_shapes(arch, 1, sized)):
        options = sized
    count = head_classes(arch, state, source, options)
    notes = [_loaded(state), *checkpoint.notes, *notes]
    license = family_of(arch).license(arch) if "." in arch else None
    return Source(
        arch,
        path.stem,
        str(path),
        state,
        count,
        checkpoint.classes,
        license,
        notes=tuple(notes),
        given=checkpoint.images.given,
        options=options,
    )


def _size_fits(state: Mapping[str, torch.Tensor], shapes: Mapping[str, torch.Size]) -> bool:
    """Whether weights are of images as large as those of a network with tensors of these shapes."""
    return all(value.shape == shapes.get(key) for key, value in state.items() if is_of_size(key))


def _check_named(arch: str) -> None:
    """Refuse what is no architecture that weights can be of.

    Raises:
        InputError: unknown, or the name of a file.
    """
    if family_of(arch).read_network is not None:
        raise InputError(f"{arch}: such a network is a file; import it: samdeploy import FILE.onnx")
    known_arch(arch)


def _loaded(state: Mapping[str, torch.Tensor]) -> str:
    return f"loaded {len(state)} tensors"


def _whole_network(path: Path, arch: str | None) -> Source:
    """The network in an ONNX file.

    Raises:
        InputError: it is no classifier that can be exported.
    """
    if arch is not None:
        raise InputError(f"--arch {arch}: an ONNX file is a network of its own; leave --arch out")
    read = family_of("onnx:").read_network
    assert read is not None
    found = read(path)
    return Source(
        found.arch,
        path.stem,
        str(path),
        found.state,
        found.num_classes,
        notes=found.notes,
        size=(found.height, found.width),
    )


def _suggestion(checkpoint: Checkpoint) -> str:
    """What to give as --arch, from what the file says or looks like."""
    name = checkpoint.arch or look_alike(checkpoint.state)
    fitting = [f"--arch {arch}" for arch in architectures_called(name)]
    if not fitting:
        return "Name it: --arch timm:NAME"
    says = "The file says" if checkpoint.arch else "Its tensors look like"
    return f"{says} {name}: {' or '.join(fitting)}"


def _no_architecture(source: str) -> str:
    """Why `source`, which is no file, is no architecture either."""
    if ":" in source:
        family_of(source)  # there is none of this prefix, which it says
    if names := architectures_called(source):
        if source in names:
            return f"has no published weights; import a file of them: samdeploy import FILE --arch {source}"
        return f"no such file; an architecture is named with its family: {' or '.join(names)}"
    return f"no such file; {EXPECTED}"


def _names(arch: str) -> set[str]:
    """Of all architectures of the same family, without prefix and tag of weights."""
    return {_plain(name) for name in family_of(arch).architectures()}


def _plain(arch: str) -> str:
    return arch.rpartition(":")[2].partition(".")[0]
