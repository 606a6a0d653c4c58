"""The images that two networks are compared on: the test images of both, a folder, labelled or not, or a list."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from samdeploy.bundle.names import JUDGED_FOLDER, set_name
from samdeploy.bundle.path_kind import path_kind
from samdeploy.compare.sides import Side, class_places
from samdeploy.data.dataset import Samples
from samdeploy.data.registry import DATASETS, NO_OPTIONS
from samdeploy.data.sets.folder import has_test_folder, is_class_tree, open_test_folder
from samdeploy.data.sets.given import is_list_of_images, what_is_given
from samdeploy.data.sets.image_list import open_test_list
from samdeploy.data.sets.layout import find_layout, name_key
from samdeploy.data.sets.read_list import read_list
from samdeploy.data.stored import file_samples
from samdeploy.errors import DatasetMissing, InputError
from samdeploy.evaluate.test_set.open import TestSet, open_test_set, was_trained_on
from samdeploy.files import expanded
from samdeploy.images.walk import find_images, list_folder

_FOLDER = "folder"


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Images that nothing was decoded of yet.

    Attributes:
        samples: labels are indices of A's classes; -1 throughout where there are none.
        is_labelled: whether there are.
        source: what they are, in words.
        notes: what there is to say about their files.
        problems: folders and links that cannot be read.
    """

    samples: Samples
    is_labelled: bool
    source: str
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """In which all of them lie; "" where they are not in files of their own."""
        parents = set(map(os.path.dirname, self.samples.names))
        return os.path.commonpath(parents) if all(parents) else ""


def open_images(a: Side, b: Side, data_root: Path | None) -> ImageSet:
    """List the images; nothing is decoded.

    Args:
        a, b: networks of the same classes.
        data_root: of --data; None: the test images that both name.

    Raises:
        InputError: the two name different test images, or `data_root` holds no images.
        DatasetError: files are missing, or labelled folders contradict themselves.
    """
    if data_root is None:
        return _test_set(a, b, None)
    root = expanded(data_root)
    if not root.is_dir() and not is_list_of_images(root):
        what = "is a file" if root.exists() else "no such folder or file"
        raise InputError(f"--data: {data_root}: {what}; name a folder of images, a table or tar shards")
    if not root.is_dir() or (what_is_given(root).kind != _FOLDER and path_kind(root) != "folder of images"):
        return _labelled(root, a, b)
    if _is_labelled(root, a.classes):
        return _labelled(root, a, b)
    name = a.bundle.data.name
    is_fixed = name in DATASETS and name not in (_FOLDER, JUDGED_FOLDER) and DATASETS[name].has_files
    if is_fixed and name == b.bundle.data.name:
        try:
            return _test_set(a, b, data_root)
        except (DatasetMissing, InputError):  # not the files of that data set: a folder of images
            pass
    return _unlabelled(root)


def _test_set(a: Side, b: Side, data_root: Path | None) -> ImageSet:
    names = [set_name(side.bundle.data.name) for side in (a, b)]
    if names[0] != names[1]:
        raise InputError(
            f"A names the data set {names[0]!r}, B {names[1]!r}; name the images to compare on: --data DIR"
        )
    first, second = (open_test_set(side.bundle, data_root) for side in (a, b))
    labels = class_places(a.classes, b)[second.samples.labels]
    if list(first.samples.names) != list(second.samples.names) or not np.array_equal(first.samples.labels, labels):
        raise InputError(
            f"A and B name different test images ({len(first.samples):,} and {len(labels):,}, data set {names[0]!r}); "
            "name the images to compare on: --data DIR"
        )
    return ImageSet(first.samples, True, f"test images of the data set {names[0]!r}", first.notes)


def _is_labelled(root: Path, classes: tuple[str, ...]) -> bool:
    """Whether a folder of the images, or of test/ where there is one, is named like a class."""
    known = {name_key(label) for label in classes}
    return any(name_key(name) in known for name in list_folder(_judged(root)).folders)


def _judged(root: Path) -> Path:
    return find_layout(root).folders.get("test", root)


def _labelled(root: Path, a: Side, b: Side) -> ImageSet:
    """Class folders, or what a table or tar shards list."""
    kind = what_is_given(root).kind
    if kind == _FOLDER:
        source, (samples, notes) = _judged(root), open_test_folder(root, a.classes)
    else:
        options = a.bundle.data.options if a.bundle.data.name == kind else NO_OPTIONS
        source, (samples, notes) = root, open_test_list(read_list(root, options), a.classes)
    for side in (a, b):
        found = _left_to_judge(root, side)
        if found is not None and len(found.samples) < len(samples):
            labels = class_places(a.classes, side)[found.samples.labels]
            text = f"test images of {root}, those that {side.name} was not made with"
            return ImageSet(replace(found.samples, labels=labels), True, text, found.notes)
    return ImageSet(samples, True, f"images of {source}", notes)


def _left_to_judge(root: Path, side: Side) -> TestSet | None:
    """What a network's own evaluation would judge of images that it was made with; None where that is all."""
    name, kind = side.bundle.data.name, what_is_given(root).kind
    is_cut = kind == _FOLDER and not has_test_folder(root) and is_class_tree(root)
    is_own = name == kind and (kind != _FOLDER or (is_cut and was_trained_on(root, side.bundle)))
    if name == JUDGED_FOLDER or is_own:
        return open_test_set(side.bundle, root)
    return None


def _unlabelled(root: Path) -> ImageSet:
    folder = _judged(root)
    found = find_images(folder)
    if not found.images:
        problems = [*map(str, found.problems), *found.notes()]
        raise InputError("; ".join([f"--data: no images in {folder}; name another folder", *problems]))
    paths = tuple(map(str, found.images))
    notes = found.notes()
    if list_folder(folder).folders:
        notes.append(f"no folder in {folder} is named like a class of the networks: compared without labels")
    samples = file_samples(paths, np.full(len(paths), -1, np.int64))
    return ImageSet(samples, False, f"images of {folder}", tuple(notes), tuple(map(str, found.problems)))
