"""Fetching archives: every way in which a network fails becomes one line with the cure."""

from __future__ import annotations

import http.client
import shutil
import socket
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from samdeploy.errors import DatasetError

# torchvision opens its connections without a timeout; a network that drops packets would hang a run for ever.
_TIMEOUT_S = 60.0


@contextmanager
def downloading(dataset: str, cure: str) -> Iterator[None]:
    """Turn whatever a download in this block raises into a `DatasetError`.

    Args:
        dataset: its name.
        cure: how to get the files by hand; one or more sentences.

    Raises:
        DatasetError: no network, a refused or broken connection, a wrong checksum, a damaged archive, or no
            right or space to write.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_S)
    try:
        yield
    except (OSError, RuntimeError, EOFError, http.client.HTTPException, tarfile.TarError, zlib.error) as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise DatasetError(f"{dataset}: the download failed: {reason}. {cure}") from error
    finally:
        socket.setdefaulttimeout(before)


def fetch_folder(url: str, md5: str, root: Path, folder: str) -> None:
    """Fetch a .tar.gz archive into `root` and unpack it, so that ``root/folder`` is there whole or not at all.

    Args:
        url: of the archive.
        md5: of the archive; a file of another sum is not unpacked.
        root: created if need be; an archive that lies here already and has this sum is not fetched again.
        folder: the only folder of the archive that is kept.

    Raises:
        OSError, RuntimeError, tarfile.TarError: see `downloading`, which this is called in.
    """
    # Late: torchvision loads torch, which only a download needs.
    from torchvision.datasets.utils import download_url

    root.mkdir(parents=True, exist_ok=True)
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
