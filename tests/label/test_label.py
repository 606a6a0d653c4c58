"""`samdeploy label`: the same bytes whoever writes them, and nothing lost."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="pip install 'samdeploy[label]'")

import pyarrow as pa
import pyarrow.parquet as pq

from samdeploy import Classifier
from samdeploy.bundle import Bundle
from samdeploy.errors import InputError
from samdeploy.images.decode import prepare
from samdeploy.label.parts import is_sound
from samdeploy.label.worker import Worker
from tests.cli.typed import Inside
from tests.label.conftest import COUNT, ROWS, Label
from tests.label.read import content, table


def test_every_row_has_its_label_or_its_error(
    labelled: Label, classifier: Classifier, images: Path, tmp_path: Path
) -> None:
    found = labelled(tmp_path / "out")
    assert found.whole and (found.done, found.errors, found.parts) == (COUNT, 2, (6, 6))
    rows = table(tmp_path / "out")
    assert [row["row"] for row in rows] == list(range(COUNT))
    assert [row["uri"] for row in rows] == [f"image {number}.png" for number in range(COUNT)]
    for number, row in enumerate(rows):
        if number in (7, 31):
            assert row["label"] is None and "not an image" in row["error"] and row["digest"] is None
            continue
        pixels = prepare(images / row["uri"], classifier.bundle.spec.preprocessing)
        assert row["digest"] == hashlib.sha256(pixels.tobytes()).digest()[:16]
        expected = classifier.predict(images / row["uri"])
        assert (row["label"], row["index"], row["error"]) == (expected.label, expected.index, None)
        assert row["probability"] == pytest.approx(expected.probability, rel=1e-5)
        assert row["top_labels"] == [name for name, _ in expected.top]
        assert (row["width"], row["height"]) == (30, 20 + number % 5)
    summary = json.loads((tmp_path / "out" / "_summary.json").read_text())
    assert sum(summary["labels"].values()) + summary["errors"] == summary["rows"] == COUNT


def test_the_bytes_are_the_same_whoever_writes_them(labelled: Label, tmp_path: Path) -> None:
    labelled(tmp_path / "one")
    for number in (3, 1, 2):
        last = labelled(tmp_path / "three", shard=(number, 3), threads=number)
    assert last.whole
    assert content(tmp_path / "one") == content(tmp_path / "three")
    # Another batch is another setting, and yet the same labels.
    labelled(tmp_path / "batch", batch=7)
    assert table(tmp_path / "batch") == table(tmp_path / "one")


def test_a_killed_labelling_goes_on(
    digits_bundle: Bundle, environment: dict[str, str], images: Path, labelled: Label, tmp_path: Path
) -> None:
    labelled(tmp_path / "whole")
    command = [sys.executable, "-m", "samdeploy", "label", digits_bundle.root, images, "--out", tmp_path / "killed"]
    command += ["--rows", str(ROWS), "--batch", "4", "--backend", "onnxruntime"]
    random.seed(0)
    kills = 0
    for _ in range(40):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        wanted = random.randrange(6)
        while process.poll() is None and len(list((tmp_path / "killed").glob("part-*"))) < wanted:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        if process.returncode == 0 or kills == 5:
            break
    assert kills >= 3
    assert labelled(tmp_path / "killed").whole
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_what_a_killed_worker_left_goes_in_one_look(
    labelled: Label, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [tmp_path / f".part-00000{number}.parquet-0a1b2c" for number in (0, 1)]
    for path in left:
        path.touch()
    looks = []
    glob = Path.glob
    monkeypatch.setattr(Path, "glob", lambda self, pattern: looks.append(pattern) or glob(self, pattern))
    labelled(tmp_path, shard=(2, 2))
    assert [path.exists() for path in left] == [True, False]  # the other worker may be at its own
    assert len(looks) <= 5  # not one for each part: folders hold thousands


def test_what_is_written_is_chosen(labelled: Label, classifier: Classifier, images: Path, tmp_path: Path) -> None:
    labelled(tmp_path / "all", logits="float32")
    rows = table(tmp_path / "all")
    assert np.argmax(rows[0]["logits"]) == rows[0]["index"] and rows[7]["logits"] is None
    assert np.allclose(rows[0]["logits"], classifier.predict(images / rows[0]["uri"]).logits, atol=1e-4)
    sure = sorted(row["probability"] for row in rows if row["label"])[20]
    found = labelled(tmp_path / "unsure", where=f"probability < {sure:.6f}")
    assert found.whole and found.done == COUNT
    assert 15 < len(table(tmp_path / "unsure")) < 25
    labelled(tmp_path / "errors", where="error")
    assert [row["row"] for row in table(tmp_path / "errors")] == [7, 31]


def test_other_settings_are_refused(labelled: Label, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise InputError("--features: not here")

    labelled(tmp_path)
    for options, text in (({"batch": 5}, "batch: 4 -> 5"), ({"logits": "float16"}, "logits: ")):
        with pytest.raises(InputError, match=text):
            labelled(tmp_path, **options)
    (tmp_path / "list.txt").write_text("a.png\n")
    with pytest.raises(InputError, match="has labels of another input"):
        labelled(tmp_path, tmp_path / "list.txt")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(InputError, match="no such file"):
        labelled(tmp_path, tmp_path / "gone", force=True)
    with monkeypatch.context() as patch, pytest.raises(InputError, match="--features: not here"):
        patch.setattr("samdeploy.label.worker.Features", refused)  # which is seen after the input is opened
        labelled(tmp_path, features="float32", force=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert labelled(tmp_path, rows=20, force=True).parts == (3, 3)
    with pytest.raises(InputError, match="--force: not with --shard"):
        labelled(tmp_path, force=True, shard=(1, 2))
    parts = [tmp_path / f"part-00000{number}.parquet" for number in (0, 1)]
    parts[0].write_bytes(parts[1].read_bytes())
    with pytest.raises(InputError, match="holds part 1"):
        labelled(tmp_path, rows=20)
    parts[0].replace(tmp_path / "part-000003.parquet")
    with pytest.raises(InputError, match=r"part-000003\.parquet is no part of this labelling; remove it"):
        labelled(tmp_path, rows=20)


def test_a_damaged_part_is_made_again(labelled: Label, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labelled(tmp_path, logits="float32")
    before = content(tmp_path)
    part = tmp_path / "part-000002.parquet"
    whole = part.read_bytes()
    # Any byte: of the magic, the pages, the footer, the digest itself; and cut off, also to nothing.
    changed = [whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in range(0, len(whole), 97)]
    digest = whole.rindex(b"samdeploy sha256 ") + 20
    changed += [whole[:digest] + b"x" + whole[digest + 1 :], whole[:-1], whole[:1000], b"", b"PAR1", whole + b"\0"]
    assert len(changed) > 50 and is_sound(part)
    for data in changed:
        part.write_bytes(data)
        assert not is_sound(part)
    assert labelled(tmp_path, logits="float32").own == ROWS
    assert f"{part}: cut off or changed; its rows are labelled again" in capsys.readouterr().err
    assert content(tmp_path) == before
    assert labelled(tmp_path, logits="float32").own == 0


def test_nothing_of_others_is_removed_or_read_as_a_list(labelled: Label, tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"x"]}), tmp_path / "part-000000.parquet")
    for folder, text in ((tmp_path, "the folder of the images"), (tmp_path / "more", "of something else")):
        folder.mkdir(exist_ok=True)
        (folder / "part-000000.parquet").write_bytes((tmp_path / "part-000000.parquet").read_bytes())
        with pytest.raises(InputError, match=text):
            labelled(folder, tmp_path, force=True)
    assert (tmp_path / "part-000000.parquet").is_file()
    for name, data, text in (
        ("a.onnx", b"\x08\0ir", "no text"), ("a.tar.gz", b"text", "no text"),
        ("utf16.txt", "a.png".encode("utf-16"), "no text"),
        ("open.csv", b'path,x\na,1\n"b,2\nc,3\n', "a quote that is not closed"),
        ("twice.csv", b"path,path\na,1\n", "2 columns are called 'path'"), ("empty.txt", b"\n", "no images found"),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=text):
            labelled(tmp_path / "out", tmp_path / name)


def test_nothing_is_left_where_no_labelling_begins(labelled: Label, images: Path, tmp_path: Path) -> None:
    (tmp_path / "no images").mkdir()
    for out in (tmp_path / "new", tmp_path / "there"):
        (tmp_path / "there").mkdir(exist_ok=True)
        with pytest.raises(InputError, match="no images found"):
            labelled(out, tmp_path / "no images")
    assert not (tmp_path / "new").exists()
    assert not list((tmp_path / "there").iterdir())
    (tmp_path / "there" / "_input.jsonl").write_text("of somebody else")
    with pytest.raises(InputError, match="has labels of another input"):
        labelled(tmp_path / "there", images)
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["_input.jsonl"]
    labelled(tmp_path / "begun", images)
    before = sorted((tmp_path / "begun").iterdir())
    with pytest.raises(InputError, match="has labels of another input"):
        labelled(tmp_path / "begun", tmp_path / "no images")
    assert sorted((tmp_path / "begun").iterdir()) == before


def test_two_at_once_are_refused_and_the_command_says_what_it_did(
    inside: Inside, digits_bundle: Bundle, images: Path, tmp_path: Path
) -> None:
    import fcntl

    arguments = ("label", digits_bundle.root, images, "--out", tmp_path / "out", "--rows", "20")
    code, _, errors = inside(*arguments, cwd=tmp_path)
    assert code == 0, errors
    assert "53 of 53 rows in 3 of 3 parts: 51 labelled, 2 errors" in errors
    assert "errors are in the column error; the first of this call: image 7.png: not an image" in errors
    for out in (digits_bundle.root, digits_bundle.root / "labels"):
        code, _, errors = inside("label", digits_bundle.root, images, "--out", out, cwd=tmp_path)
        assert code == 2 and "inside a bundle, which nothing may change; name another folder" in errors
    (tmp_path / "out" / ".lock-1-of-2").touch()
    for lock, options in (("1-of-1", ()), ("1-of-1", ("--shard", "2/2")), ("1-of-2", ())):
        with (tmp_path / "out" / f".lock-{lock}").open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            code, _output, errors = inside(*arguments, *options, cwd=tmp_path)
        assert code == 2 and "another process labels into it" in errors


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="ray is installed")
def test_a_missing_ray_is_named(inside: Inside, digits_bundle: Bundle, images: Path, tmp_path: Path) -> None:
    code, _output, errors = inside("label", digits_bundle.root, images, "--out", "out", "--engine", "ray", cwd=tmp_path)
    assert code == 1 and "pip install 'samdeploy[label,ray]'" in errors


def test_an_interrupted_labelling_says_how_to_go_on(
    digits_bundle: Bundle, images: Path, tmp_path: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, left = Worker.work, [0]  # parts to make before Ctrl-C

    def interrupted(worker: Worker, *of: Any) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        work(worker, *of)

    monkeypatch.setattr(Worker, "work", interrupted)
    nothing = (
        "stopped before the first part was whole, so nothing is kept; a part has 4 rows; --rows N --force makes "
        "smaller ones"
    )
    for left[0], more, said in (
        (0, (), nothing),
        (0, ("--force",), nothing),
        (1, ("--force",), "stopped after 1 part; the same command without --force goes on from there"),
        (1, (), "stopped after 2 parts; the same command goes on from there"),
    ):
        line = ("label", digits_bundle.root, images, "--out", tmp_path / "out", "--rows", "4", *more)
        code, _, errors = inside(*line, "--backend", "onnxruntime", cwd=tmp_path)
        assert (code, errors.splitlines()[-2:]) == (130, [said, "samdeploy: interrupted"])
