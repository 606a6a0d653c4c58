"""Fetching archives: every way in which a network fails becomes one line with the cure."""

from __future__ import annotations

import http.client
import shutil
import socket
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from samdeploy.errors import DatasetError
from samdeploy.files import made_folder

# torchvision opens its connections without a timeout; a network that drops packets would hang a run for ever.
_TIMEOUT_S = 60.0


@contextmanager
def downloading(dataset: str, cure: str, root: Path, folder: str) -> Iterator[None]:
    """Turn whatever a download in this block raises into a `DatasetError`, and remove what it wrote until then.

    Args:
        dataset: its name.
        cure: how to get the files by hand; one or more sentences.
        root: where the files go; made if need be.
        folder: below `root`, where they are unpacked.

    Raises:
        DatasetError: no network, a refused or broken connection, a wrong checksum, a damaged archive, or no
            right or space to write.
    """
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_S)
    try:
        with made_folder(root):
            before = set(_entries(root, folder))
            try:
                yield
            except BaseException:
                _remove(path for path in _entries(root, folder) if path not in before)
                raise
    except (OSError, RuntimeError, EOFError, http.client.HTTPException, tarfile.TarError, zlib.error) as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise DatasetError(f"{dataset}: the download failed: {reason}. {cure}") from error
    finally:
        socket.setdefaulttimeout(timeout)


def _entries(root: Path, folder: str) -> list[Path]:
    """What lies in `root`, and in `folder` at any depth; other data sets in `root` may be large."""
    return [*root.iterdir(), *(root / folder).rglob("*")]


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def fetch_folder(url: str, md5: str, root: Path, folder: str) -> None:
    """Fetch a .tar.gz archive into `root` and unpack it, so that ``root/folder`` is there whole or not at all.

    Args:
        url: of the archive.
        md5: of the archive; a file of another sum is not unpacked.
        root: exists; an archive that lies here already and has this sum is not fetched again.
        folder: the only folder of the archive that is kept.

    Raises:
        OSError, RuntimeError, tarfile.TarError: see `downloading`, which this is called in.
    """
    # Late: torchvision loads torch, which only a download needs.
    from torchvision.datasets.utils import download_url

    download_url(url, str(root), md5=md5)
    unpacked = Path(tempfile.mkdtemp(prefix=".unpack-", dir=root))
    try:
        with tarfile.open(root / url.rsplit("/", 1)[-1]) as archive:
            if hasattr(tarfile, "data_filter"):
                archive.extractall(unpacked, filter="data")
            else:  # Python 3.11.0 to 3.11.3; the md5 sum says that this is the authors' archive
                archive.extractall(unpacked)
        (unpacked / folder).rename(root / folder)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
