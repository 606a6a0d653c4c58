"""The idx file format of MNIST and its kin (Y. LeCun, "The MNIST database": file formats).

Big-endian: two zero bytes, the element type (8 = unsigned byte), the number of dimensions, one 32-bit size per
dimension, then the elements in C order.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from samdeploy.arrays import UInt8Array
from samdeploy.errors import DatasetError

_UNSIGNED_BYTE = 8


def read_idx(path: Path, dimensions: int) -> UInt8Array:
    """Read a .gz or plain idx file of unsigned bytes.

    Args:
        path: the file; packed if its name ends in ".gz".
        dimensions: that the file must have.

    Returns:
        uint8 with that many dimensions.

    Raises:
        DatasetError: the file cannot be read, is no idx file of this kind, or is not as long as its header says.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{path}: cannot be unpacked ({error}); remove it and get it again") from error
    magic = bytes((0, 0, _UNSIGNED_BYTE, dimensions))
    header = 4 + 4 * dimensions
    if content[:4] != magic or len(content) < header:
        raise DatasetError(
            f"{path}: starts with bytes {content[:4].hex()}, {magic.hex()} expected (idx file of bytes with "
            f"{dimensions} dimension{'s' if dimensions > 1 else ''}); remove it and get it again"
        )
    shape = tuple(int(size) for size in np.frombuffer(content, dtype=">u4", count=dimensions, offset=4))
    expected = int(np.prod(shape, dtype=object))
    if len(content) - header != expected:
        raise DatasetError(
            f"{path}: {len(content) - header} bytes of data found, {expected} expected ({'x'.join(map(str, shape))}); "
            "it is truncated or damaged, remove it and get it again"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)
