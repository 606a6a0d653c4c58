"""Confident labels become a table that a training reads; no other row does."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="pip install 'samdeploy[label]'")

from PIL import Image

from samdeploy import Classifier
from samdeploy.bundle import Bundle
from samdeploy.data import open_dataset
from samdeploy.data.sets.table import read_table
from samdeploy.label.label import LabelOptions, label
from tests.cli.typed import Inside


@pytest.fixture
def photos(digits_bundle: Bundle, tmp_path: Path) -> Path:
    """Test digits without their classes, a copy of the first, and a broken file."""
    data = digits_bundle.data
    found = open_dataset("digits", val_fraction=data.val_fraction, seed=data.split_seed).test
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(200):
        Image.fromarray(found.load(index)).save(folder / f"{index}, a photo.png")
    shutil.copy(folder / "0, a photo.png", folder / "copy.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def labelled(bundle: Bundle, given: Path | str, out: Path) -> Path:
    with Classifier.open(bundle.root, "onnxruntime") as classifier:
        assert label(classifier, LabelOptions(str(given), out)).whole
    return out


def test_training_reads_the_confident_labels(
    inside: Inside, digits_bundle: Bundle, photos: Path, tmp_path: Path
) -> None:
    import pyarrow.parquet as pq

    out = labelled(digits_bundle, photos, tmp_path / "labels")
    rows = [row for row in pq.read_table(out / "part-000000.parquet").to_pylist() if row["label"]]
    least = sorted(row["probability"] for row in rows)[40]
    arguments = ("data", photos, "--from-labels", out, "--out", tmp_path / "next.csv")
    code, output, errors = inside(*arguments, "--min-probability", f"{least:.9f}", cwd=tmp_path)
    assert code == 0, errors
    expected = {str(photos / row["uri"]): row["label"] for row in rows if row["probability"] >= float(f"{least:.9f}")}
    del expected[str(photos / "copy.png")]
    with (tmp_path / "next.csv").open(newline="") as file:
        assert {row["path"]: row["label"] for row in csv.DictReader(file)} == expected
    assert f"{len(expected)} images of 10 classes written" in errors
    assert "1 without a label" in errors and "1 copies" in errors and "below" in errors
    settings = ("--set", "model.arch=sam-resnet18", "--set", "model.pretrained=false", "--size", "32", "--epochs", "1")
    code, output, errors = inside(
        "train", tmp_path / "next.csv", *settings, "--set", "training.device=cpu", cwd=tmp_path
    )
    assert code == 0, errors
    assert "on table: 10 classes" in errors + output


def test_what_cannot_be_trained_on_is_refused(
    inside: Inside, digits_bundle: Bundle, photos: Path, tmp_path: Path
) -> None:
    out = labelled(digits_bundle, photos, tmp_path / "labels")
    tar = shutil.make_archive(str(tmp_path / "photos"), "tar", photos)
    tars = labelled(digits_bundle, tar, tmp_path / "tars")
    broken = tmp_path / "broken"
    broken.mkdir()
    shutil.copy(photos / "broken.png", broken)
    nothing = labelled(digits_bundle, broken, tmp_path / "nothing")
    table = tmp_path / "next.csv"
    for arguments, text in (
        ((tmp_path, "--from-labels", out, "--out", table), "no file in"),
        ((photos, "--from-labels", tars, "--out", table), "of images inside tar files; unpack them"),
        ((broken, "--from-labels", nothing, "--out", table), "no label is left to train on"),
        ((photos, "--from-labels", out, "--out", table, "--min-probability", "95"), "95 found, 0 to 1 expected"),
        (
            (photos, "--from-labels", out, "--out", tmp_path / "next.txt"),
            "next.txt: a .csv expected; name it so, such as",
        ),
        ((photos, "--from-labels", out), "--from-labels: needs --out"),
        ((photos, "--from-labels", out, "--out", table, "--size", "64"), "--size: not with --from-labels"),
        ((photos, "--from-labels", out, "--out", table, "--no-cache"), "--no-cache: not with --from-labels"),
        ((photos, "--min-probability", "0.5"), "--min-probability: only with --from-labels"),
        ((photos, "--from-labels", photos, "--out", table), "a folder that samdeploy label wrote"),
    ):
        code, _output, errors = inside("data", *arguments, cwd=tmp_path)
        assert code == 2 and text in errors, errors
    assert not table.exists() and not list(tmp_path.glob(".next*"))


def test_odd_names_are_quoted_or_left_out(inside: Inside, digits_bundle: Bundle, photos: Path, tmp_path: Path) -> None:
    names = ["a\rb.png", "a\nb.png", 'a"b, c.png', "\\udcfe.png", os.fsdecode(b"\xff.png")]
    folder = tmp_path / "odd"
    folder.mkdir()
    for number, name in enumerate(names):
        shutil.copy(photos / f"{number}, a photo.png", folder / name)
    out = labelled(digits_bundle, folder, tmp_path / "labels")
    code, _output, errors = inside(
        "data", folder, "--from-labels", out, "--out", tmp_path / "t.csv", "--min-probability", "0", cwd=tmp_path
    )
    assert code == 0 and "1 whose names are not UTF-8" in errors, errors
    found = read_table(tmp_path / "t.csv", {})
    assert found.faults.lines() == []
    assert sorted(Path(name).name for name in found.names) == sorted(names[:4])


def test_other_images_of_the_same_names_are_refused(
    inside: Inside, digits_bundle: Bundle, photos: Path, tmp_path: Path
) -> None:
    out = labelled(digits_bundle, photos, tmp_path / "labels")
    other = shutil.copytree(photos, tmp_path / "other")
    shutil.copy(photos / "1, a photo.png", other / "0, a photo.png")
    arguments = ("--from-labels", out, "--out", tmp_path / "next.csv")
    code, _, errors = inside("data", other, *arguments, cwd=tmp_path)
    assert code == 2 and "0, a photo.png: " in errors and "when it was labelled" in errors
    (out / "_input.jsonl").write_text("[]")
    code, _output, errors = inside("data", photos, *arguments, cwd=tmp_path)
    assert code == 2 and "_input.jsonl: was changed; remove it" in errors
    assert not (tmp_path / "next.csv").exists()
