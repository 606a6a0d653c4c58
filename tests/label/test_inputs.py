"""What can be labelled: folders, lists, tables, tars and addresses; what is wrong with them is named."""

from __future__ import annotations

import csv
import functools
import http.server
import io
import json
import os
import shutil
import sys
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="pip install 'samdeploy[label]'")

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from samdeploy.errors import InputError
from samdeploy.label.containers import Tars
from tests.label.conftest import COUNT, Label
from tests.label.read import table


def test_a_folder_that_cannot_be_read_is_refused(labelled: Label, images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(images, folder)
    (folder / "loop").symlink_to("loop")  # root may read every folder
    with pytest.raises(InputError, match=r"loop: this link cannot be followed .*; make it readable, or move it away"):
        labelled(tmp_path / "out", folder)


def test_what_a_tar_has_behind_its_end_is_not_lost_in_silence(labelled: Label, images: Path, tmp_path: Path) -> None:
    for name in ("1.tar", "2.tar"):
        with tarfile.open(tmp_path / name, "w") as tar:
            tar.add(images / "image 0.png", "0.png")
    (tmp_path / "both.tar").write_bytes((tmp_path / "1.tar").read_bytes() + (tmp_path / "2.tar").read_bytes())
    with pytest.raises(
        InputError, match=r"data found behind its end at byte [0-9,]+: damaged, or several tars in one file"
    ):
        labelled(tmp_path / "out", tmp_path / "both.tar")


def test_pipes_and_addresses_are_refused(labelled: Label, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for given, text in ((tmp_path / "pipe", "a pipe found; give -"), ("s3://a/b/", "an address found; write")):
        with pytest.raises(InputError, match=text):
            labelled(tmp_path / "out", given)


def test_several_lists_and_kinds_are_refused(labelled: Label, tmp_path: Path) -> None:
    for name, found in (("1.csv", ""), ("2.csv", "2 lists found"), ("3.tar", r"several kinds \(.csv, .tar\) found")):
        (tmp_path / name).write_text("uri\na.png\n")
        if found:
            with pytest.raises(InputError, match=f"{found}; one list, or tars"):
                labelled(tmp_path / "out", tmp_path / "?.*")


def test_of_a_pattern_folders_are_left_out(labelled: Label, images: Path, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / "tree" / str(number)).mkdir(parents=True)
        shutil.copy(images / "image 0.png", tmp_path / "tree" / str(number))
    with pytest.raises(InputError, match=r"3 folders found; name one, or the images in them: '.*/tree/\*/\*.png'"):
        labelled(tmp_path / "out", tmp_path / "tree" / "*")
    assert labelled(tmp_path / "out", tmp_path / "tree" / "**").rows == 3


def test_images_beside_a_parquet_file(labelled: Label, images: Path, tmp_path: Path) -> None:
    shutil.copy(images / "image 0.png", tmp_path / "a.png")
    encoded = (images / "image 1.png").read_bytes()
    rows = [("a.png", None), ("b.png", encoded), ("b\0.png", None), ("b" * 999, None), (None, None)]
    image = [{"bytes": content, "path": path} for path, content in rows]
    pq.write_table(pa.table({"image": image}), tmp_path / "t.parquet")
    labelled(tmp_path / "out", tmp_path / "t.parquet")
    found, expected = table(tmp_path / "out"), (labelled(tmp_path / "folder"), table(tmp_path / "folder"))[1]
    assert [row["probability"] for row in found[:2]] == [row["probability"] for row in expected[:2]]
    assert all("no image in this row, and beside t.parquet no file 'b" in row["error"] for row in found[2:4])
    assert found[4]["error"] == "no image in this row"


def test_all_kinds_of_input_give_the_same_labels(
    labelled: Label, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled(tmp_path / "folder")
    expected = [(row["label"], row["probability"], row["error"] is None) for row in table(tmp_path / "folder")]
    paths = [images / f"image {number}.png" for number in range(COUNT)]
    lines = "".join(f"{path}\n" for path in paths)
    (tmp_path / "list.txt").write_text(lines)
    with (tmp_path / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "path"], *([number, path] for number, path in enumerate(paths))])
    pq.write_table(pa.table({"uri": list(map(str, paths))}), tmp_path / "uris.parquet")
    encoded = [path.read_bytes() for path in paths]
    structs = [{"bytes": one, "path": None} for one in encoded]
    pq.write_table(pa.table({"image": encoded}), tmp_path / "bytes.parquet", row_group_size=9)
    pq.write_table(pa.table({"picture": structs[:30]}), tmp_path / "structs-1.parquet", row_group_size=7)
    pq.write_table(pa.table({"picture": structs[30:]}), tmp_path / "structs-2.parquet")
    for name, part in (("shard-1.tar", paths[:20]), ("shard-2.tar", paths[20:])):
        with tarfile.open(tmp_path / name, "w") as tar:
            for path in part:
                tar.add(path, path.name)
                tar.addfile(tarfile.TarInfo(f"{path.stem}.cls"), io.BytesIO())
    given = {
        "pattern": images / "*.png", "list": tmp_path / "list.txt", "csv": tmp_path / "table.csv",
        "uris": tmp_path / "uris.parquet", "bytes": tmp_path / "bytes.parquet",
        "structs": tmp_path / "structs-*.parquet", "tars": tmp_path / "shard-*.tar",
    }  # fmt: skip
    for name, one in given.items():
        found = labelled(tmp_path / name, one, column="picture" if name == "structs" else "")
        assert found.whole, name
        rows = table(tmp_path / name)
        assert [(row["label"], row["probability"], row["error"] is None) for row in rows] == expected, name
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    assert labelled(tmp_path / "stdin", "-", limit=25).rows == 25
    (tmp_path / "stdin" / "part-000001.parquet").unlink()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))  # its names are on record
    assert labelled(tmp_path / "stdin", "-", limit=25).whole
    assert [row["label"] for row in table(tmp_path / "stdin")] == [label for label, *_ in expected[:25]]


def test_names_of_standard_input_mean_the_same_images_later(
    labelled: Label, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = "".join(f"image {number}.png\n" for number in range(12)).encode()
    monkeypatch.chdir(images)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(names)))
    assert labelled(tmp_path / "out", "-").whole
    (tmp_path / "out" / "part-000001.parquet").unlink()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(InputError, match="has labels of another input"):
        labelled(tmp_path / "out", "-")


def test_a_column_of_what_has_none_is_refused(labelled: Label, images: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.png\n")
    for given in (images, images / "*.png", tmp_path / "list.txt", "-"):
        with pytest.raises(InputError, match=r"--column 'path': .* has no columns; leave --column out"):
            labelled(tmp_path / "out", given, column="path")
    (tmp_path / "empty.csv").touch()
    with pytest.raises(InputError, match=r"empty.csv: is empty; the names of columns, such as path"):
        labelled(tmp_path / "out", tmp_path / "empty.csv")


def test_other_images_of_the_same_names_are_another_input(labelled: Label, images: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        folder = tmp_path / name / "all"
        folder.mkdir(parents=True)
        for number in (0, 1, 2):
            data = (images / f"image {number}.png").read_bytes()
            (folder / f"{number}.png").write_bytes(data + b"\0" * (name == "two"))
        # Of the same lengths: their content tells them from one another.
        with tarfile.open(folder.with_suffix(".tar"), "w") as tar:
            entry = tarfile.TarInfo("a.png")
            entry.size = 3
            tar.addfile(entry, io.BytesIO(name.encode()))
        pq.write_table(pa.table({"image": [name.encode() * 9]}), folder.with_suffix(".parquet"), compression="none")
    for suffix in ("", ".tar", ".parquet"):
        out = tmp_path / f"out{suffix}"
        labelled(out, tmp_path / "one" / f"all{suffix}")
        with pytest.raises(InputError, match=r"has labels of another input|begun with other settings"):
            labelled(out, tmp_path / "two" / f"all{suffix}")


def test_bad_input_is_named(labelled: Label, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    (tmp_path / "excel.csv").write_text("path,x\na,1\n", encoding="utf-16")
    (tmp_path / "cut.tar").write_bytes(b"x" * 700)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    for name, text in (
        ("none", "no such file"), ("no-*.tar", "no file matches"), ("a.csv", "columns 'x', 'y' found"),
        ("excel.csv", "UTF-16 found; save it again with the encoding UTF-8"),
        ("cut.tar", "damaged"), ("a.parquet", "no Parquet file"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=text):
            labelled(tmp_path / "out", tmp_path / name)
    with pytest.raises(InputError, match="--where"):
        labelled(tmp_path / "out", where="label = 3")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "list.txt").write_text(
        f"{tmp_path / 'pipe.png'}\n{tmp_path}\nnone.png\n\udcff.png\n", "utf-8", "surrogateescape"
    )
    found = labelled(tmp_path / "rows", tmp_path / "list.txt")
    assert (found.whole, found.errors) == (True, 4)
    assert all(row["error"] for row in table(tmp_path / "rows"))


def test_addresses_are_fetched_and_one_that_hangs_is_given_up(labelled: Label, images: Path, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="pip install 'samdeploy[label]'")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if "hang" in self.path:
                time.sleep(3)
            if "big" in self.path:
                self.directory = str(tmp_path)
            super().do_GET()

        def do_HEAD(self) -> None:
            asked_first.append(self.path)

        def log_message(self, *arguments: object) -> None: ...

    asked_first: list[str] = []
    serving = functools.partial(Handler, directory=str(images))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serving) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        names = [f"{address}/image%20{number}.png" for number in range(12)]
        names += [f"{address}/none.png", f"{address}/hang.png", "nowhere://x.png"]
        big = np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8)
        Image.fromarray(big).save(tmp_path / "big.png")  # more than one piece
        names.append(f"{address}/big.png")
        (tmp_path / "list.txt").write_text("\n".join(names))
        begin = time.monotonic()
        found = labelled(tmp_path / "out", tmp_path / "list.txt", timeout=1.0)
        assert time.monotonic() - begin < 30
        server.shutdown()
    labelled(tmp_path / "folder", limit=12)
    rows = table(tmp_path / "out")
    assert [row["probability"] for row in rows[:12]] == [row["probability"] for row in table(tmp_path / "folder")]
    assert found.whole and found.errors == 4 and not asked_first
    assert [row["row"] for row in rows if row["error"]] == [7, 12, 13, 14]
    assert "no answer within 1 s" in rows[13]["error"] and rows[15]["width"] == 900


def test_a_row_costs_the_same_however_many_files_there_are(images: Path, tmp_path: Path) -> None:
    files = [tmp_path / str(number) / "a.tar" for number in range(40)]
    for file in files:
        file.parent.mkdir()
        with tarfile.open(file, "w") as tar:
            tar.add(images / "image 0.png", "a.png")
    calls, identities = [], []
    for count in (10, 40):
        given = Tars(files[:count])
        assert next(given.rows(0, 1)).uri == "0/a.tar#a.png"
        found: list[str] = []
        sys.setprofile(lambda frame, event, _, found=found: found.append(event))  # type: ignore[misc]
        list(given.rows(0, 1))
        sys.setprofile(None)
        calls.append(found.count("call"))
        identities.append(len(json.dumps(given.identity)))
    assert calls[1] < calls[0] + 30  # a call for each of 30 more files would be that; the interpreter adds a few
    assert identities[0] == identities[1]  # every part repeats it
