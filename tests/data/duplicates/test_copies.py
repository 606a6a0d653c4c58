"""Copies within a set, and images under two labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from samdeploy.data.duplicates.bundle_hashes import from_bundle_hashes
from samdeploy.data.duplicates.copies import TwoLabels, find_two_labels, first_copies
from samdeploy.data.duplicates.file_copies import file_copies
from samdeploy.data.duplicates.image_hashes import ImageHashes


def hashes(digests: list[int], labels: list[int], name: str) -> ImageHashes:
    count = len(digests)
    rows = np.array([[7, digest] for digest in digests], np.uint64).reshape(-1, 2)
    names = [f"{name}{index}" for index in range(count)]
    return ImageHashes(rows, np.zeros((count, 4), np.uint64), names, np.array(labels, np.int64))


def test_each_image_knows_its_first_copy() -> None:
    digests = np.array([[9, 1], [1, 9], [9, 1], [0, 0], [1, 9], [9, 1]], np.uint64)
    assert first_copies(digests).tolist() == [0, 1, 0, 3, 1, 0]
    assert first_copies(digests[:0]).tolist() == []


def test_two_labels_are_found_within_a_split_and_across() -> None:
    splits = {
        "train": hashes([1, 2, 3, 1, 1], [0, 1, 2, 0, 1], "train"),
        "val": hashes([4], [2], "val"),
        "test": hashes([2, 4, 3], [0, 0, 2], "test"),
    }
    found = find_two_labels(splits, ("cat", "dog", "cow"))
    assert found == TwoLabels(
        3, (("train0", "cat", "train4", "dog"), ("train1", "dog", "test0", "cat"), ("val0", "cow", "test1", "cat"))
    )
    assert found.lines() == (
        "3 images have two labels: train0 ('cat') = train4 ('dog'); train1 ('dog') = test0 ('cat'); val0 ('cow') = "
        "test1 ('cat'). Keep each image in one class only, and remove its other copies",
    )
    assert find_two_labels(splits, ("cat", "dog", "cow"), of="test").images == 2


def test_an_image_with_many_labels_counts_once_and_three_are_shown() -> None:
    split = hashes([1] * 5 + [2, 2, 3, 3, 4, 4], [0, 1, 2, 1, 0, 0, 1, 0, 1, 0, 1], "a")
    found = find_two_labels({"train": split}, ("x", "y", "z"))
    assert (found.images, len(found.examples)) == (4, 3)


def test_unknown_labels_contradict_nothing() -> None:
    splits = {"train": hashes([1, 2], [-1, -1], "train"), "test": hashes([1, 2], [0, 1], "test")}
    assert find_two_labels(splits, ("x", "y")) == TwoLabels(0)
    assert TwoLabels(0).lines() == ()


def test_files_of_the_same_bytes_are_found_whatever_their_names(tmp_path: Path) -> None:
    long = bytes(range(256)) * 300  # longer than the beginning that is compared first
    contents = {"a": b"one", "b": b"two", "c": b"one", "d": long, "e": long[:-1] + b"!", "f": long, "g": b"one"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "link").symlink_to(tmp_path / "b")
    paths = [str(tmp_path / name) for name in (*contents, "link", "missing")]
    found = {Path(copy).name: Path(first).name for copy, first in file_copies(paths).items()}
    assert found == {"c": "a", "g": "a", "f": "d", "link": "b"}


def test_two_labels_within_test_name_both_files_away_from_the_run() -> None:
    known = from_bundle_hashes(np.array([[7, 0]], np.uint64), "train")
    digests, labels = np.array([[7], [7]], np.uint64), np.array([0, 1])
    test = ImageHashes(digests, np.zeros((2, 4), np.uint64), ["a/1.png", "b/2.png"], labels)
    (line,) = find_two_labels({"train": known, "test": test}, ("a", "b"), of="test").lines()
    assert line.startswith("1 image has two labels: a/1.png ('a') = b/2.png ('b'). ")
