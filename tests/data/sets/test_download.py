"""Downloads, against a web server on this machine's loopback address."""

from __future__ import annotations

import hashlib
import socket
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from samdeploy.data import open_dataset
from samdeploy.data.sets import aircraft
from samdeploy.errors import DatasetError

FOLDER = "fgvc-aircraft-2013b"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def served(
    aircraft_root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """An archive with the small aircraft tree, served where the code expects the true one; yields the archive."""
    site = tmp_path_factory.mktemp("site")
    archive = site / f"{FOLDER}.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(aircraft_root / FOLDER, FOLDER)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(aircraft, "_URL", f"http://127.0.0.1:{server.server_port}/{archive.name}")
    monkeypatch.setattr(aircraft, "_MD5", hashlib.md5(archive.read_bytes()).hexdigest())
    yield archive
    server.shutdown()
    server.server_close()


def test_fetches_and_unpacks(served: Path, tmp_path: Path) -> None:
    root = tmp_path / "new" / "root"
    assert len(open_dataset("aircraft", root, download=True).train) == 16
    assert sorted(path.name for path in root.iterdir()) == [FOLDER, f"{FOLDER}.tar.gz"]
    served.unlink()
    assert len(open_dataset("aircraft", root, download=True).train) == 16  # there already: nothing is fetched


def test_wrong_checksum_unpacks_nothing(served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aircraft, "_MD5", "0" * 32)
    root = tmp_path / "new"
    with pytest.raises(DatasetError, match=r"^aircraft: the download failed: File not found or corrupted\. Get http"):
        open_dataset("aircraft", root, download=True)
    assert not root.exists()


def test_an_archive_that_cannot_be_unpacked_leaves_nothing(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.write_bytes(served.read_bytes()[:3000])
    monkeypatch.setattr(aircraft, "_MD5", hashlib.md5(served.read_bytes()).hexdigest())
    root = tmp_path / "new"
    root.mkdir()
    (root / "other.txt").touch()
    with pytest.raises(DatasetError, match=r"^aircraft: the download failed: .+ Get http"):
        open_dataset("aircraft", root, download=True)
    assert [path.name for path in root.iterdir()] == ["other.txt"]


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(aircraft, "_URL", f"http://127.0.0.1:9/{FOLDER}.tar.gz")
    root = tmp_path / "new"
    with pytest.raises(DatasetError) as error:
        open_dataset("aircraft", root, download=True)
    assert list(tmp_path.iterdir()) == []
    assert str(error.value) == (
        "aircraft: the download failed: <urlopen error [Errno 111] Connection refused>. Get "
        f"http://127.0.0.1:9/{FOLDER}.tar.gz (2.75 GB, md5 d4acdd33327262359767eeaa97a4f732) and unpack it: "
        f"`mkdir -p {root} && tar -xzf {FOLDER}.tar.gz -C {root}`"
    )
    assert socket.getdefaulttimeout() is None
