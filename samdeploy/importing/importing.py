"""From a source of weights to a run directory."""

from __future__ import annotations

import hashlib
import platform
import re
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

import samdeploy
from samdeploy.bundle.names import HASHES_FILE, JUDGED_FOLDER, WEIGHTS_FILE
from samdeploy.bundle.spec import ModelSpec, OptionValue, model_spec
from samdeploy.data.dataset import Dataset
from samdeploy.data.duplicates.image_hashes import set_hashes, write_hashes
from samdeploy.errors import InputError, first_line
from samdeploy.files import expanded
from samdeploy.importing.class_names import class_names, difference, names_beside, other_order, read_class_names
from samdeploy.importing.images import SHARE_ASIDE, check_images, open_images
from samdeploy.importing.measure import Aside, measure
from samdeploy.importing.source import Source, read_source
from samdeploy.models import build_model, family_of, save_weights
from samdeploy.models.preprocessing import Given, assumed, in_words, preprocessing_for
from samdeploy.models.registry import complete_options
from samdeploy.models.weights import load_state
from samdeploy.runs.new_folder import check_runs_root, new_run_folder
from samdeploy.runs.record import RunRecord, write_run
from samdeploy.terminal import printable

_LONGEST_NAME = 100
_LONGEST_LICENSE = 200
# Names of licenses in timm's records: cc-by-nc-4.0, fair-noncommercial-research-license, apple-amlr, seer-license.
_NOT_COMMERCIAL = re.compile(r"\bnc\b|non-?commercial|\bamlr\b|\bseer\b|research", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What `samdeploy import` was asked for.

    Attributes:
        source: an architecture with published weights ("timm:resnet50.a1_in1k"), or a file.
        arch: whose weights the file holds.
        options: of the architecture's family.
        classes: file of class names.
        trust_order: they are in the network's order, though not in that of the folders.
        data: folder of images, see `samdeploy.data.sets.judged_folder`; None: FP32 graphs only.
        given: preprocessing that differs from the record.
        license: of the weights, where no record says it.

    Raises:
        InputError: the license is a text and not a name.
    """

    source: str
    arch: str | None = None
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    classes: Path | None = None
    trust_order: bool = False
    data: Path | None = None
    given: Given = field(default_factory=Given)
    license: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.license, str | None):
            raise InputError(f"license: {self.license!r:.40} found, a name such as 'apache-2.0' expected")
        if (found := len(self.license or "")) > _LONGEST_LICENSE:
            raise InputError(f"--license: {found:,} characters found, a name of at most {_LONGEST_LICENSE} expected")


def import_network(options: ImportOptions, *, runs_root: Path, dataset: Dataset | None = None) -> Path:
    """Write a run directory with status "imported".

    Args:
        dataset: that of `options.data`, where it is opened already.

    Returns:
        The run directory; `samdeploy.export.export_run` takes it.

    Raises:
        InputError: source, class names, preprocessing or images do not fit the network; nothing is written.
        WeightsError: the weights cannot be had, or are not the architecture's.
        DatasetError: images are missing or damaged.
    """
    check_runs_root(runs_root)
    source = read_source(options.source, options.arch, options.options, options.given)
    return import_source(source, options, runs_root=runs_root, dataset=dataset)


def import_source(source: Source, options: ImportOptions, *, runs_root: Path, dataset: Dataset | None = None) -> Path:
    """A network that was read already; see `import_network`."""
    check_runs_root(runs_root)
    arch, family_options = source.arch, complete_options(source.arch, {**options.options, **source.options})
    model = build_model(arch, source.num_classes, family_options).eval()
    load_state(model, source.state, source.origin)
    if source.notes:
        print(printable("; ".join(source.notes)), file=sys.stderr)
    given = options.given.before(source.given)
    if source.size is not None and given.height is None:
        given = replace(given, height=source.size[0], width=source.size[1])
    preprocessing = preprocessing_for(arch, family_options, given)
    if dataset is None and options.data is not None:
        dataset = open_images(options.data)
    if dataset is not None:
        check_images(dataset, preprocessing)
    classes = _classes(source, options, () if dataset is None else dataset.classes)
    license = options.license or source.license
    if license and _NOT_COMMERCIAL.search(license):
        print(f"warning: these weights are not for commercial use: {printable(license)}", file=sys.stderr)
    spec = model_spec(arch, family_options, classes, preprocessing, license)
    _check_answers(model, spec)
    print(printable(in_words(preprocessing, arch, family_options, options.given, given)), file=sys.stderr)
    if guessed := assumed(arch, family_options, given):
        print(
            f"warning: {', '.join(guessed)} assumed, since nothing says how the network was trained; a wrong one costs "
            "accuracy: give what it was trained with, or --preprocessing timm:NAME",
            file=sys.stderr,
        )
    aside = None if dataset is None else measure(model, spec, dataset, doubtful=not source.is_published)
    path = new_run_folder(runs_root, f"{_folder_name(source.name)}-{time.strftime('%Y%m%d-%H%M%S')}")
    try:
        save_weights(model, path / WEIGHTS_FILE)
        if aside is not None:
            write_hashes(path / HASHES_FILE, {"val": aside.hashes})
        digest = hashlib.sha256((path / WEIGHTS_FILE).read_bytes()).hexdigest()
        write_run(path, _record(source, spec, options.data, dataset, aside, digest))
    except BaseException:  # Ctrl-C and a full disk leave no half of a run
        shutil.rmtree(path, ignore_errors=True)
        raise
    return path


def _folder_name(name: str) -> str:
    """What a terminal and every file system take, also with a date behind it."""
    return re.sub(r"[^\w.+-]", "_", name[:_LONGEST_NAME], flags=re.ASCII).lstrip(".-") or "network"


def _classes(source: Source, options: ImportOptions, folders: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the classes in the network's order; prints what is doubtful about them.

    Raises:
        InputError: there are none, or they do not fit.
    """
    given = [] if options.classes is None else [(f"--classes {options.classes}", read_class_names(options.classes))]
    own = [] if source.classes is None else [(source.origin, source.classes)]
    known = given or own or _published_labels(source, folders)
    # Names that came with the weights are in their order, whatever the folders'.
    trust_order = options.trust_order or (options.classes is None and bool(known))
    if not known and options.data is not None:
        known = names_beside(expanded(options.data), source.num_classes, folders)
        if known:
            print(f"class names from {printable(known[0][0])}", file=sys.stderr)
    classes = class_names(source.num_classes, known, folders, trust_order=trust_order)
    if not source.is_published and (found := other_order(classes, folders)):
        print(printable(found), file=sys.stderr)
    if given and source.classes and (found := difference(classes, source.classes, source.origin)):
        print(f"warning: {printable(f'--classes {options.classes}: {found}')}", file=sys.stderr)
    return classes


def _published_labels(source: Source, folders: tuple[str, ...]) -> list[tuple[str, tuple[str, ...]]]:
    """Label sets that the weights were published with; of other weights those that hold the names of all folders."""
    sets = family_of(source.arch).labels(source.arch, source.num_classes)
    fitting = [names for names in sets if folders and set(folders) <= set(names)]
    return [("the published labels", names) for names in fitting or (sets if source.is_published else ())]


@torch.inference_mode()
def _check_answers(model: nn.Module, spec: ModelSpec) -> None:
    """Whether the network takes images of this size and gives one row of logits for each.

    Raises:
        InputError: it does not.
    """
    size, count = spec.preprocessing, len(spec.classes)
    try:
        found = model(torch.zeros(2, 3, size.height, size.width))
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        raise InputError(
            f"{spec.arch} does not take images of {size.height}x{size.width} ({first_line(error)}); give its own size: "
            "--size PIXELS"
        ) from None
    shape = list(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
    if shape != [2, count]:
        raise InputError(
            f"{spec.arch} answers two images with {shape}, [2, {count}] expected: only classifiers with one output of "
            "logits can be imported"
        )
    if not found.isfinite().all():
        raise InputError(f"{spec.arch}: its answers are not finite; these weights cannot be used")


def _record(
    source: Source, spec: ModelSpec, root: Path | None, dataset: Dataset | None, aside: Aside | None, sha256: str
) -> RunRecord:
    counts = {} if dataset is None else {"val": len(dataset.val), "test": len(dataset.test)}
    images, labelled = ("", "") if aside is None else set_hashes(aside.hashes.digests, aside.hashes.labels)
    return RunRecord(
        arch=spec.arch,
        options=spec.options,
        classes=spec.classes,
        preprocessing=spec.preprocessing,
        dataset=JUDGED_FOLDER,
        data_options={},
        data_root="" if root is None else str(expanded(root).absolute()),
        val_fraction=SHARE_ASIDE,
        split_seed=0,
        counts=counts,
        fingerprints={},
        status="imported",
        best_epoch=0,
        best_val_top1=0.0 if aside is None else aside.top1,
        best_val_loss=0.0 if aside is None else aside.loss,
        test_top1=None,
        test_correct=None,
        test_images=None,
        provenance={
            "weights": source.origin,
            **({"copies": "; ".join(dataset.notes)} if dataset is not None and dataset.notes else {}),
            "samdeploy": samdeploy.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        weights_sha256=sha256,
        images_sha256={} if aside is None else {"val": images},
        labelled_sha256={} if aside is None else {"val": labelled},
        license=spec.license,
    )
