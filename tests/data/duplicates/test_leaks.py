"""The leak guard: copies of images are found, recompressed ones too, and honest splits are left in peace."""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from samdeploy.bundle.spec import Preprocessing
from samdeploy.data import SPLITS, load_images, open_dataset
from samdeploy.data.duplicates.image_hashes import (
    ImageHashes,
    digests_of,
    hash_images,
    perceptual_hashes,
    read_hashes,
    set_hashes,
    write_hashes,
)
from samdeploy.data.duplicates.leaks import (
    MAX_EXACT_PERCENT,
    NEAR_BITS,
    LeakReport,
    Overlap,
    SharedImage,
    find_leaks,
    find_overlap,
    is_among,
    refuse_leaks,
)
from samdeploy.data.sets.fashion_mnist import DEBIAN_FOLDER
from samdeploy.errors import DatasetError

TILE = 104
NO_LABELS = np.full(10_000, -1)


@pytest.fixture(scope="module")
def photographs() -> np.ndarray:
    """Different images uint8 [N, 104, 104, 3]: tiles of two photographs, without those of nothing but sky."""
    tiles = [
        photograph[top : top + TILE, left : left + TILE]
        for photograph in load_sample_images().images
        for top in range(0, photograph.shape[0] - TILE + 1, TILE)
        for left in range(0, photograph.shape[1] - TILE + 1, TILE)
    ]
    return np.stack([tile for tile in tiles if tile.std() > 20])


def hashed(images: np.ndarray, name: str = "image") -> ImageHashes:
    return hash_images([images], [f"{name}[{index}]" for index in range(len(images))], NO_LABELS[: len(images)])


def changed(images: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(change(Image.fromarray(image)).resize(image.shape[1::-1])) for image in images])


def jpeg(image: Image.Image) -> Image.Image:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=75)
    return Image.open(content)


# A change -> the share of photographs that must be known again.  What is missed is soft and dark corners.
LIKENESSES: dict[str, tuple[Callable[[Image.Image], Image.Image], float]] = {
    "jpeg": (jpeg, 0.7),
    "smaller": (lambda image: image.resize((60, 60), Image.Resampling.BILINEAR), 0.9),
    "brighter": (lambda image: image.point(lambda value: value * 0.9 + 20), 0.9),
    "grey": (lambda image: image.convert("L").convert("RGB"), 0.9),
}


# --- hashes -----------------------------------------------------------------------------------------------------------


def test_digests_are_sha256_of_the_pixels() -> None:
    import hashlib

    images = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)
    expected = [hashlib.sha256(image.tobytes()).digest()[:16] for image in images]
    assert [digest.astype("<u8").tobytes() for digest in digests_of(images)] == expected
    assert digests_of(images).shape == (3, 2)
    # A view that is not contiguous is the same image.
    assert np.array_equal(digests_of(np.repeat(images, 2, axis=2)[:, :, ::2]), digests_of(images))


def test_set_hashes_know_images_and_labels_in_any_order() -> None:
    images = np.random.default_rng(1).integers(0, 256, (4, 5, 7, 3), dtype=np.uint8)
    images[3] = images[0]
    labels = np.array([2, 0, 1, 1])
    digests = [hashlib.sha256(image.tobytes()).digest()[:16] for image in images]
    pairs = sorted((struct.unpack("<QQ", digest), label) for digest, label in zip(digests, labels, strict=True))
    expected = hashlib.sha256(b"".join(struct.pack("<QQ", *digest) for digest, _ in pairs)).hexdigest()
    labelled = hashlib.sha256(b"".join(struct.pack("<QQq", *digest, label) for digest, label in pairs)).hexdigest()
    assert set_hashes(digests_of(images), labels) == (expected, labelled)
    order = [3, 1, 0, 2]
    assert set_hashes(digests_of(images[order]), labels[order]) == (expected, labelled)
    without, other = set_hashes(digests_of(images), np.array([1, 0, 1, 2]))
    assert (without, other) == (expected, labelled)  # copies under two labels: which is which cannot be seen
    assert set_hashes(digests_of(images), np.array([0, 2, 1, 1]))[0] == expected
    assert set_hashes(digests_of(images), np.array([0, 2, 1, 1]))[1] != labelled


def test_perceptual_hash_is_the_sign_of_the_cosine_transform() -> None:
    from scipy.fft import dctn

    images = np.random.default_rng(1).integers(0, 256, (4, 40, 24, 3), dtype=np.uint8)
    grey = images.astype(np.float64) @ [0.299, 0.587, 0.114]
    signs = dctn(grey, type=2, axes=(1, 2))[:, :16, :16].reshape(4, 256) > 0
    signs[:, 0] = False  # the mean
    found = np.unpackbits(perceptual_hashes(images).astype("<u8").view(np.uint8), axis=1).astype(bool)
    assert np.array_equal(found, signs)


def test_blocks_do_not_matter(photographs: np.ndarray) -> None:
    names = [str(index) for index in range(len(photographs))]
    whole = hash_images([photographs], names, NO_LABELS[: len(names)])
    parts = hash_images([photographs[:1], photographs[1:30], photographs[30:]], names, NO_LABELS[: len(names)])
    assert np.array_equal(whole.digests, parts.digests)
    assert np.array_equal(whole.perceptual, parts.perceptual)
    assert len(whole) == len(photographs) == len(np.unique(whole.digests, axis=0))


def test_hashes_survive_the_disk(photographs: np.ndarray, tmp_path: Path) -> None:
    splits = {
        "train": hashed(photographs[:20]),
        "test": hash_images([photographs[20:22]], ["a\nb", "gr\u00fcn\udcff"], np.array([3, -1])),
    }
    write_hashes(tmp_path / "hashes.npz", splits)
    again = read_hashes(tmp_path / "hashes.npz")
    assert list(again) == ["test", "train"]
    for split, expected in splits.items():
        assert np.array_equal(again[split].digests, expected.digests)
        assert np.array_equal(again[split].perceptual, expected.perceptual)
        assert list(again[split].names) == list(expected.names)
        assert again[split].labels.tolist() == expected.labels.tolist()


def test_damaged_hashes_are_refused(photographs: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "hashes.npz"
    write_hashes(path, {"train": hashed(photographs[:20])})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DatasetError, match=r"hashes\.npz: no image hashes .*; remove it, or train again"):
        read_hashes(path)
    whole = hashed(photographs[:20])
    write_hashes(path, {"train": ImageHashes(whole.digests[:-1], whole.perceptual, whole.names, whole.labels)})
    with pytest.raises(DatasetError, match=r"train: uint64 \[19, 2\], uint64 \[20, 4\], int64 \[20\] found for 20"):
        read_hashes(path)


# --- overlaps ---------------------------------------------------------------------------------------------------------


def test_equal_pixels_are_found_and_counted_once(photographs: np.ndarray) -> None:
    train = hashed(photographs[:30], "train")
    # Two test images that are in train, one of them twice over: three of the ten.
    test = hashed(np.concatenate([photographs[30:37], photographs[[3, 3, 7]]]), "test")
    overlap = find_overlap("test", test, "train", train)
    assert (overlap.images, overlap.exact, overlap.near) == (10, 3, 0)
    assert overlap.exact_percent == 30.0
    pairs = [(example.name, example.other, example.bits, example.is_exact) for example in overlap.examples]
    assert pairs == [
        ("test[7]", "train[3]", 0, True), ("test[8]", "train[3]", 0, True), ("test[9]", "train[7]", 0, True),
    ]  # fmt: skip
    assert is_among(test.digests, train.digests).tolist() == [False] * 7 + [True] * 3


def test_different_photographs_are_not_taken_for_one_another(photographs: np.ndarray) -> None:
    report = find_leaks({"train": hashed(photographs[::2]), "test": hashed(photographs[1::2])})
    assert [(found.split, found.other, found.exact, found.near) for found in report.overlaps] == [
        ("test", "train", 0, 0)
    ]
    assert report.lines() == ()


@pytest.mark.parametrize("name", LIKENESSES)
def test_likenesses_are_found_and_named(photographs: np.ndarray, name: str) -> None:
    change, share = LIKENESSES[name]
    overlap = find_overlap("test", hashed(changed(photographs, change), "copy"), "train", hashed(photographs, "train"))
    assert overlap.exact == 0 and overlap.near >= share * len(photographs) > 30
    for example in overlap.examples:
        assert example.other == example.name.replace("copy", "train")
        assert not example.is_exact and 0 <= example.bits <= NEAR_BITS


def test_the_nearest_is_named_wherever_blocks_end(photographs: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("samdeploy.data.duplicates.likeness._PAIRS", 300)  # two or three rows at a time
    copies = changed(photographs, jpeg)
    train = hashed(np.concatenate([changed(photographs, LIKENESSES["smaller"][0]), photographs]), "train")
    found = find_overlap("test", hashed(copies, "copy"), "train", train)
    bits = np.bitwise_count(hashed(copies).perceptual[:, None] ^ train.perceptual).sum(axis=2, dtype=np.int64)
    assert found.near == int((bits.min(axis=1) <= NEAR_BITS).sum())
    for example in found.examples:
        assert example.bits == bits[int(example.name[5:-1])].min()


def test_flat_images_look_like_nothing() -> None:
    flat = np.stack([np.full((32, 32, 3), value, np.uint8) for value in (0, 90, 255)])
    overlap = find_overlap("test", hashed(flat[:2]), "train", hashed(flat[1:]))
    assert (overlap.exact, overlap.near) == (1, 0)  # the same grey is the same image, all the same
    # One level more in a corner is no image either; a slope of a few levels is one.
    corner, slope = flat[1:2].copy(), flat[1:2].copy()
    corner[0, :4, :4] += 1
    slope += np.arange(32, dtype=np.uint8)[:, None] // 4
    assert not perceptual_hashes(corner).any() and perceptual_hashes(slope).any()


def test_empty_splits_have_nothing_in_common(photographs: np.ndarray) -> None:
    nothing = hashed(photographs[:0])
    for one, other in ((nothing, hashed(photographs)), (hashed(photographs), nothing)):
        overlap = find_overlap("test", one, "train", other)
        assert (overlap.images, overlap.exact, overlap.near, overlap.exact_percent) == (len(one), 0, 0, 0)


def test_every_pair_of_splits_is_compared(photographs: np.ndarray) -> None:
    splits = {"test": hashed(photographs[:10]), "train": hashed(photographs[5:40]), "val": hashed(photographs[9:20])}
    report = find_leaks(splits)
    found = [(overlap.other, overlap.split, overlap.exact) for overlap in report.overlaps]
    assert found == [("train", "val", 11), ("train", "test", 5), ("val", "test", 1)]
    only = find_leaks(splits, into=("test",))
    assert [(overlap.other, overlap.split) for overlap in only.overlaps] == [("train", "test"), ("val", "test")]


def test_the_same_file_is_said(photographs: np.ndarray, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.png", "copy of a.png", "a.bmp", "b.png")]
    for path in paths[:3]:
        Image.fromarray(photographs[0]).save(path)
    Image.fromarray(photographs[1]).save(paths[3])
    images = photographs[[0, 0, 0, 1]]
    train = hash_images([images[:1]], [str(paths[0])], NO_LABELS[:1])
    test = hash_images([images[1:]], [str(path) for path in paths[1:]], NO_LABELS[:3])
    overlap = find_overlap("test", test, "train", train)
    assert [(Path(found.name).name, found.is_same_file) for found in overlap.examples] == [
        ("copy of a.png", True), ("a.bmp", False),
    ]  # fmt: skip


# --- what is said, and what is refused --------------------------------------------------------------------------------


def overlap(exact: int, near: int = 0, images: int = 200, split: str = "test") -> Overlap:
    example = SharedImage("test/1.png", "train/2.png", 0 if exact else 5, exact > 0, False)
    return Overlap(split, "train", images, exact, near, (example,) if exact or near else ())


def test_words_and_json() -> None:
    report = LeakReport((overlap(3, 2), overlap(0, 1), overlap(0)))
    assert report.lines() == (
        "3 of 200 test images (1.50 %) are also in train, with the same pixels; 2 more (1.00 %) look like one in "
        "train, for example test/1.png = train/2.png (the same pixels)",
        "1 of 200 test images (0.50 %) look like one in train, for example test/1.png ~ train/2.png (5 of 256 bits "
        "differ)",
    )
    first = report.to_json()["overlaps"][0]
    assert report.to_json()["near_bits"] == NEAR_BITS and len(report.to_json()["overlaps"]) == 3
    assert first == {
        "split": "test", "other": "train", "images": 200, "exact": 3, "exact_percent": 1.5, "near": 2,
        "near_percent": 1.0,
        "examples": [{"name": "test/1.png", "other": "train/2.png", "bits": 0, "exact": True, "same_file": False}],
    }  # fmt: skip


def test_images_that_show_nothing_are_called_that() -> None:
    grey, stripes = np.full((1, 8, 8, 3), 90, np.uint8), np.zeros((1, 8, 8, 3), np.uint8)
    stripes[:, ::2] = 255
    hashes = hash_images([grey, stripes], ["grey", "stripes"], NO_LABELS[:2])
    found = find_overlap("test", hashes, "train", hashes)
    assert (found.exact, found.flat) == (2, 1)
    with pytest.raises(DatasetError, match=r"1 of these 2 are of one colour throughout: are they the .* mean\?$"):
        refuse_leaks(LeakReport((found,)), "data set 'folder'")


def test_a_few_shared_images_are_no_reason_to_refuse() -> None:
    most = int(200 * MAX_EXACT_PERCENT / 100)
    refuse_leaks(LeakReport((overlap(most, near=200 - most),)), "data set 'folder'")
    with pytest.raises(DatasetError):
        refuse_leaks(LeakReport((overlap(most + 1),)), "data set 'folder'")


def test_the_refusal_names_counts_examples_and_the_cure() -> None:
    with pytest.raises(DatasetError) as caught:
        refuse_leaks(LeakReport((overlap(9, split="val"), overlap(1), overlap(200))), "data set 'folder'")
    assert str(caught.value) == (
        "data set 'folder': 9 of 200 val images (4.5 %) are also in train, with the same pixels; 200 of 200 test "
        "images (100.0 %) are also in train, with the same pixels; at most 2 % is allowed. Keep each image in one "
        "split only; to train all the same: --set data.leaks=report. For example: test/1.png = train/2.png (the "
        "same pixels)"
    )


# --- real sets --------------------------------------------------------------------------------------------------------


def splits_of(name: str, root: Path, count: int | None = None) -> dict[str, ImageHashes]:
    dataset = open_dataset(name, root)
    found = {}
    for split in SPLITS:
        samples = dataset.split(split)
        samples = samples.take(np.arange(len(samples))[:count])
        images, _ = load_images(samples, Preprocessing(32, 32), description=split)
        found[split] = hash_images([images], samples.names, samples.labels)
    return found


def counts(report: LeakReport) -> Sequence[tuple[str, str, int, int]]:
    return [(found.split, found.other, found.exact, found.near) for found in report.overlaps]


def test_the_digits_are_not_accused(tmp_path: Path) -> None:
    found = counts(find_leaks(splits_of("digits", tmp_path)))
    assert found == [("val", "train", 0, 0), ("test", "train", 0, 0), ("test", "val", 0, 0)]


@pytest.mark.skipif(not DEBIAN_FOLDER.is_dir(), reason="apt-get install dataset-fashion-mnist")
def test_clothes_are_not_accused_and_a_leaked_one_is_found(tmp_path: Path) -> None:
    splits = splits_of("fashion-mnist", tmp_path, 2000)
    # Of all 10,000 test images 12 look like one of the 54,000 training images, and show the same article.
    assert [(exact, near <= 1) for _, _, exact, near in counts(find_leaks(splits))] == [(0, True)] * 3
    honest, leaked = splits["test"], splits["train"]
    digests, perceptual = honest.digests.copy(), honest.perceptual.copy()
    digests[17], perceptual[17] = leaked.digests[1234], leaked.perceptual[1234]
    found = find_overlap("test", ImageHashes(digests, perceptual, honest.names, honest.labels), "train", leaked)
    assert found.exact == 1
    assert (found.examples[0].name, found.examples[0].other) == (honest.names[17], leaked.names[1234])
