"""The test images that a bundle is judged on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from samdeploy.bundle import Bundle
from samdeploy.bundle.names import JUDGED_FOLDER, RUN_FILE
from samdeploy.data import check_folder, open_dataset
from samdeploy.data.cache import stream_prepared
from samdeploy.data.dataset import Dataset, Samples
from samdeploy.data.duplicates.image_hashes import digests_of
from samdeploy.data.duplicates.leaks import is_among
from samdeploy.data.images import Fingerprint
from samdeploy.data.protocol import HONEST
from samdeploy.data.registry import NO_OPTIONS
from samdeploy.data.sets.folder import has_test_folder, is_class_tree, open_test_folder
from samdeploy.data.sets.given import OWN_IMAGES, what_is_given
from samdeploy.data.sets.image_list import open_test_list
from samdeploy.data.sets.judged_folder import LEAST_ASIDE
from samdeploy.data.sets.layout import name_key
from samdeploy.data.sets.read_list import read_list
from samdeploy.errors import DatasetError, DatasetMissing, InputError
from samdeploy.evaluate.passes import BATCH
from samdeploy.evaluate.test_set.seen_in_training import known_images
from samdeploy.files import expanded
from samdeploy.images.walk import list_folder, natural_key
from samdeploy.runs.locate import run_around
from samdeploy.runs.record import open_run

# What `Report.test_set` says where the images are the very ones that training measured.
AS_AT_TRAINING = "as at training"
# Of an imported network: no training is known that they could be compared with.
TRAINED_ELSEWHERE = "trained elsewhere"
_SHOWN = 5
# Data sets whose images are wherever the user says.
_ANYWHERE = (*OWN_IMAGES, JUDGED_FOLDER)
_CHANGED = "the list in the bundle's manifest was changed; make the bundle again: samdeploy export"


@dataclass(frozen=True, slots=True)
class TestSet:
    """Labelled test images, read when they are asked for, and what there is to say about their files."""

    # pytest would take the name for a class of tests.
    __test__ = False

    samples: Samples
    notes: tuple[str, ...]


def open_test_set(bundle: Bundle, data_root: Path | None) -> TestSet:
    """The test split of the bundle's data set.

    Of a user's own images it is test/ or the rows of that split; or all images, where there are no splits and they were
    not trained on.  Of an imported network it is all images of class folders or of test/, of which none was set aside,
    or those that a table or tar shards list.

    Args:
        bundle: names the data set, its options and its split.
        data_root: where it lies; None: where the run beside the bundle found it, or where the data set is looked for
            by itself.

    Raises:
        DatasetError: files are missing or damaged, or there is no test image.
        InputError: its classes are not those of the bundle, or `data_root` does not exist.
    """
    check_folder(bundle.data.name, data_root, "the bundle's")
    if bundle.data.name in _ANYWHERE and data_root is not None and what_is_given(expanded(data_root)).is_missing():
        raise InputError(
            f"{data_root}: no such folder or file; test/<class>/ or <class>/ images, a table or tar shards expected"
        )
    root = _data_root(bundle, data_root)
    return _away_from_its_run(bundle) if root is None else _test_set_in(root, bundle)


def _test_set_in(root: Path, bundle: Bundle) -> TestSet:
    data = bundle.data
    if data.name in OWN_IMAGES and data.options.get("protocol", HONEST) == HONEST:
        found = _own_test_set(expanded(root), bundle)
        if found is not None:
            return found
    if data.name == JUDGED_FOLDER and (found := _all_judged(expanded(root), bundle)) is not None:
        return found
    dataset = _whole_dataset(root, bundle)
    if data.name == JUDGED_FOLDER:  # labels go by the names, in the order of the network
        dataset = dataset.relabelled(bundle.spec.classes)
    if dataset.classes != bundle.spec.classes:
        raise InputError(_other_classes(data.name, dataset.classes, bundle.spec.classes))
    if not len(dataset.test):
        raise DatasetMissing(f"data set {data.name!r} has no test images in {root}")
    return TestSet(dataset.test, dataset.notes)


def _own_test_set(root: Path, bundle: Bundle) -> TestSet | None:
    """Test images that need no training images beside them; None where they are to be cut off those."""
    classes, kind = bundle.spec.classes, what_is_given(root).kind
    if kind == "folder":
        if has_test_folder(root) or (is_class_tree(root) and not was_trained_on(root, bundle)):
            return _test_images_alone(root, classes, bundle.data.name)
        return None
    is_same_kind = kind == bundle.data.name
    found = read_list(root, bundle.data.options if is_same_kind else NO_OPTIONS)
    is_known = set(found.labels) <= set(classes)
    is_cut = is_known and "test" not in found.splits and (any(found.splits) or was_trained_on(root, bundle))
    return None if is_cut and is_same_kind else TestSet(*open_test_list(found, classes))


def _whole_dataset(root: Path, bundle: Bundle) -> Dataset:
    """With the splits of training, those that it cut included."""
    data = bundle.data
    return open_dataset(data.name, root, options=data.options, val_fraction=data.val_fraction, seed=data.split_seed)


def _all_judged(root: Path, bundle: Bundle) -> TestSet | None:
    """All images of a list, class folders or test/, where none was set aside when the network was imported.

    Where some were, the others are judged: None.
    """
    if _is_of_run(root, bundle):
        return None
    if what_is_given(root).kind != "folder":
        samples, notes = open_test_list(read_list(root, NO_OPTIONS), bundle.spec.classes)
    elif is_class_tree(root) or has_test_folder(root):
        samples, notes = open_test_folder(root, bundle.spec.classes)
    else:
        return None
    if len(samples) >= 2 * LEAST_ASIDE:  # of fewer, none can have been
        aside = _whole_dataset(root, bundle).val
        if not set(aside.names).isdisjoint(samples.names) and _is_known(aside, bundle):
            return None
    return TestSet(samples, notes)


def _is_known(samples: Samples, bundle: Bundle) -> bool:
    """Whether an image was looked at when the engines were made."""
    known = [found.digests[:, :1] for found in known_images(bundle).values()]
    if not known:
        return False
    blocks = stream_prepared(samples, bundle.spec.preprocessing, description="looking for known images", block=BATCH)
    with closing(blocks):
        return any(is_among(digests_of(block)[:, :1], np.concatenate(known)).any() for block in blocks)


def _is_of_run(root: Path, bundle: Bundle) -> bool:
    run_root = _data_root(bundle, None)
    return run_root is not None and expanded(run_root).resolve() == root.resolve()


def was_trained_on(root: Path, bundle: Bundle) -> bool:
    """Whether the class folders in `root` are those of training, of which it cut its test images.

    They are where the run found them, or anywhere else if the same cut gives the same test images.
    """
    if _is_of_run(root, bundle):
        return True
    if what_is_given(root).kind == "folder":  # at once: a cut reads files
        folders = set(map(name_key, list_folder(root).folders))
        if not folders.issuperset(map(name_key, bundle.spec.classes)):
            return False
    try:
        dataset = _whole_dataset(root, bundle)
        is_alike = dataset.classes == bundle.spec.classes and len(dataset.test) == bundle.data.counts.get("test")
        return is_alike and _fingerprint(dataset.test, bundle) == bundle.data.fingerprints.get("test")
    except DatasetError:  # too few to be cut, or damaged: training would have refused them
        return False


def _fingerprint(samples: Samples, bundle: Bundle) -> str:
    preprocessing = bundle.spec.preprocessing
    digest = Fingerprint((len(samples), preprocessing.height, preprocessing.width, 3))
    for block in stream_prepared(samples, preprocessing, description="comparing with training", block=BATCH):
        digest.update(block)
    return digest.hexdigest(samples.labels)


def _away_from_its_run(bundle: Bundle) -> TestSet:
    """The images, where a data set that is known by its name is found without a run that says where."""
    name = bundle.data.name
    here = f"no test images here: {bundle.root} is not in its run folder, which says where they are"
    if name in _ANYWHERE and not bundle.data.counts:
        here = f"no test images here: {bundle.root} was imported without images"
    if name in _ANYWHERE or not name:
        raise InputError(f"{here}; give class folders, a table or tar shards: --data PATH")
    try:
        return _test_set_in(Path("data"), bundle)
    except DatasetMissing as error:
        raise InputError(f"{here}; give the folder of {name!r}: --data FOLDER ({error})") from None


def _test_images_alone(root: Path, classes: tuple[str, ...], name: str) -> TestSet:
    in_order = tuple(sorted(classes, key=natural_key))
    if (
        name == "folder" and in_order != classes
    ):  # no training folder tells that two names were swapped, but their order does
        raise InputError(_other_classes("folder", in_order, classes))
    return TestSet(*open_test_folder(root, classes))


def same_as_at_training(bundle: Bundle, fingerprint: str) -> str:
    """Whether images with this fingerprint are those that training measured, in words."""
    if bundle.is_imported:
        return TRAINED_ELSEWHERE
    recorded = bundle.data.fingerprints.get("test")
    if recorded is None:
        return "not recorded at training"
    return AS_AT_TRAINING if recorded == fingerprint else "differs from the one at training"


def _data_root(bundle: Bundle, data_root: Path | None) -> Path | None:
    if data_root is not None:
        return data_root
    run_dir = run_around(bundle)
    if not (run_dir / RUN_FILE).is_file():
        return None
    root = open_run(run_dir).data_root  # "" where a network was imported without images
    return Path(root) if root else None


def _other_classes(name: str, found: Sequence[str], expected: Sequence[str]) -> str:
    extra = [label for label in found if label not in expected]
    missing = [label for label in expected if label not in found]
    parts = [f"the bundle does not know {_names(extra)}"] if extra else []
    parts += [f"the data set lacks {_names(missing)}"] if missing else []
    if not parts:
        place = next(index for index, (one, other) in enumerate(zip(found, expected, strict=True)) if one != other)
        parts = [f"the same in another order: class {place} is {found[place]!r}, {expected[place]!r} expected"]
        cure = f"Their order follows from the names: {_CHANGED}"
    elif name in OWN_IMAGES:
        cure = "These are not its images: give their folder with --data, or rename the class folders"
    else:
        cure = f"The data set's names never change: {_CHANGED}"
    return (
        f"data set {name!r} has {len(found)} classes, the bundle was trained on {len(expected)}: {'; '.join(parts)}. "
        + cure
    )


def _names(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
    return ", ".join(map(repr, labels[:_SHOWN])) + more
