"""Which folders below a data set's root are splits, and which are classes."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from samdeploy.data.dataset import SPLITS
from samdeploy.errors import DatasetMissing
from samdeploy.images.walk import Found, counted, find_images, is_image_name, list_folder, shortened, suffix_of
from samdeploy.terminal import printable

# What people and tools call the splits; compared in lower case.
_SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "development", "eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
# Beside one of those they add nothing: training_set, "Test Images", val-data, trainset.
_FILLERS = (
    *("dataset", "data", "sets", "set", "split", "folder", "directory", "dir", "files", "samples", "examples"),
    *("images", "image", "imgs", "img", "pictures", "pics", "photos"),
)


@dataclass(slots=True)
class Layout:
    """How the folders below a root are read.

    Attributes:
        folders: split -> its folder; `root` itself as train where the class folders lie directly below it.
        notes: what is passed over.
        faults: what must be changed first.
    """

    folders: dict[str, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def name_key(name: str) -> str:
    """Equal for names that differ in case, Unicode form or spaces around them alone."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).strip()


def split_of(name: str) -> str | None:
    """The split that a folder of this name holds: "train", "val" or "test"; None for every other name."""
    words = [word for word in map(_without_filler, _words(name)) if word]
    return _SPLIT_WORDS.get(words[0]) if len(words) == 1 else None


def splits_mentioned(name: str) -> set[str]:
    """The splits that occur as words in a name such as "seg_train"."""
    return {_SPLIT_WORDS[word] for word in map(_without_filler, _words(name)) if word in _SPLIT_WORDS}


def find_layout(root: Path) -> Layout:
    """Read the names of the folders directly below `root`, and look into those that could mean two things.

    Raises:
        DatasetMissing: `root` is no folder.
    """
    if not root.is_dir():
        found = "is a file" if root.exists() else "no such folder"
        raise DatasetMissing(f"{printable(root)}: {found}; a folder with <class>/ or train/<class>/ images expected")
    listing = list_folder(root)
    named = {name: split for name in listing.folders if (split := split_of(name))}
    others = [name for name in listing.folders if name not in named]
    if not named:
        return Layout({"train": root})
    with_images = [name for name in others if find_images(root / name).images]
    nested = [name for name in named if list_folder(root / name).folders]
    if with_images and not nested and len(named) == 1 and not any(map(splits_mentioned, with_images)):
        read = f"{_listed(named)}: read as a class beside {_listed(with_images)}"
        return Layout({"train": root}, [f"{read}, because there are no class folders inside"])
    layout = Layout()
    layout.faults += map(str, listing.problems)
    _name_splits(root, named, layout)
    _judge_others(root, with_images, layout)
    without = [name for name in others if name not in with_images]
    if without:
        layout.notes.append(f"{_listed(without)} in {printable(root)} not used: no images there")
    loose = Found()
    loose.system.update(listing.system)
    loose.skipped.update(suffix_of(name) for name in listing.files if not is_image_name(name))
    layout.notes += [f"{printable(root)}: {note}" for note in loose.notes()]
    images = [root / name for name in listing.files if is_image_name(name)]
    if images:
        layout.notes.append(f"{counted(len(images), 'image')} outside of any split not used: {shortened(images)}")
    for name in listing.files:
        if split_of(name):
            layout.notes.append(f"{printable(root / name)} is a file, not a folder, and is not used")
    return layout


def _name_splits(root: Path, named: dict[str, str], layout: Layout) -> None:
    by_split: dict[str, list[str]] = defaultdict(list)
    for name, split in named.items():
        by_split[split].append(name)
    for split in SPLITS:
        names = by_split.get(split, [])
        if names:
            layout.folders[split] = root / names[0]
        if len(names) > 1:
            layout.faults.append(
                f"{' and '.join(f'{printable(name)}/' for name in names)} in {printable(root)} both mean {split}; "
                "keep one, or move the images of both into it"
            )
    if any(folder.name != split for split, folder in layout.folders.items()):
        read = ", ".join(f"{printable(folder.name)}/ as {split}" for split, folder in layout.folders.items())
        layout.notes.append(f"{printable(root)}: reading {read}")


def _judge_others(root: Path, names: list[str], layout: Layout) -> None:
    """Folders with images beside the splits: refused where one could be a split that is missing, or a class."""
    train = layout.folders.get("train")
    classes = {name_key(name) for name in list_folder(train).folders} if train else set()
    unclear = []
    for name in names:
        is_like_a_split = any(name_key(inside) in classes for inside in list_folder(root / name).folders)
        if len(layout.folders) == 1 or (is_like_a_split and len(layout.folders) < len(SPLITS)):
            unclear.append(name)
        else:
            layout.notes.append(f"{printable(name)}/ in {printable(root)} not used: it is none of the splits")
    if unclear:
        splits = _listed([folder.name for folder in layout.folders.values()])
        layout.faults.append(
            f"{_listed(unclear)} beside {splits} in {printable(root)}: split or class? Rename a split to train, val or "
            "test; put class folders into train/; move everything else out"
        )


def _words(name: str) -> list[str]:
    """In lower case; digits and the like between them are left out, as is the boundary in "dataTrain"."""
    return re.findall(r"[^\W\d_]+", name_key(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)))


def _without_filler(word: str) -> str:
    """ "trainset" -> "train", "images" -> ""."""
    for filler in _FILLERS:
        if word.endswith(filler) and (word == filler or word.removesuffix(filler) in _SPLIT_WORDS):
            return word.removesuffix(filler)
    return word


def _listed(names: list[str] | dict[str, str]) -> str:
    return shortened(f"{name}/" for name in names)
