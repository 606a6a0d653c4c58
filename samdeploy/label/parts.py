"""The results: Parquet files of so many rows of the input each, written whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from samdeploy.arrays import Float32Array
from samdeploy.errors import InputError
from samdeploy.files import write_atomic

TOP = 5
DIGEST_BYTES = 16
_META = b"samdeploy"
# In the footer of a part: the SHA-256 of the whole file, computed with zeros in its own place.
_SEAL, _SEAL_LENGTH = "samdeploy sha256 ", 64
_NUMBERS = {"float16": pa.float16(), "float32": pa.float32()}


@dataclass(frozen=True, slots=True)
class Labelled:
    """One row of the results.

    Attributes:
        row: of the input, from 0.
        error: why there is no label; "" where there is one, and then `index` and what follows it.
        size: (width, height) of the upright image in pixels; (0, 0) where it was not read.
        digest: the first 16 bytes of the SHA-256 of the prepared pixels, see `image_hashes.digests_of`: copies of one
            image have the same; b"" where it was not read.
    """

    row: int
    uri: str
    error: str = ""
    size: tuple[int, int] = (0, 0)
    label: str | None = None
    index: int | None = None
    probability: float | None = None
    rejected: bool | None = None
    top: tuple[tuple[str, float], ...] = ()
    logits: Float32Array | None = None
    features: Float32Array | None = None
    digest: bytes = b""


def part_path(folder: Path, number: int) -> Path:
    """Where the results of the rows from `number` times the rows of a part on are."""
    return folder / f"part-{number:06d}.parquet"


def schema(vectors: Mapping[str, tuple[str, int]]) -> pa.Schema:
    """Of every part.

    Args:
        vectors: "logits", "features" -> ("float16" or "float32", how many numbers); those that are wanted.
    """
    fields = [
        ("row", pa.int64()), ("uri", pa.string()), ("label", pa.string()), ("index", pa.int32()),
        ("probability", pa.float32()), ("rejected", pa.bool_()), ("top_labels", pa.list_(pa.string())),
        ("top_probabilities", pa.list_(pa.float32())), ("error", pa.string()), ("width", pa.int32()),
        ("height", pa.int32()), ("digest", pa.binary(DIGEST_BYTES)),
    ]  # fmt: skip
    fields += [(name, pa.list_(_NUMBERS[kind], width)) for name, (kind, width) in vectors.items()]
    return pa.schema(fields)


def write_part(
    path: Path,
    number: int,
    rows: Sequence[Labelled],
    form: pa.Schema,
    settings: Mapping[str, Any],
    counts: Mapping[str, int],
) -> None:
    """Write one part, the one of this number.

    Args:
        rows: in the order of the input; with --where, those that were asked for.
        settings: what the labels depend on; stands in the file.
        counts: of all rows of the part, those left out included.
    """
    columns: dict[str, list[Any]] = {
        "row": [one.row for one in rows],
        "uri": [utf8(one.uri) for one in rows],
        "label": [one.label for one in rows],
        "index": [one.index for one in rows],
        "probability": [one.probability for one in rows],
        "rejected": [one.rejected for one in rows],
        "top_labels": [[name for name, _ in one.top] or None for one in rows],
        "top_probabilities": [[share for _, share in one.top] or None for one in rows],
        "error": [utf8(one.error) or None for one in rows],
        "width": [one.size[0] or None for one in rows],
        "height": [one.size[1] or None for one in rows],
        "digest": [one.digest or None for one in rows],
    }
    arrays = [pa.array(values, form.field(name).type) for name, values in columns.items()]
    arrays += [
        _vectors([getattr(one, name) for one in rows], form.field(name).type) for name in form.names[len(columns) :]
    ]
    meta = {"part": number, "settings": settings, "counts": counts}
    table = pa.Table.from_arrays(arrays, schema=form.with_metadata({_META: json.dumps(meta, sort_keys=True)}))
    write_atomic(path, sealed(table))


def sealed(table: pa.Table) -> bytearray:
    """A Parquet file of the table, with the SHA-256 of its bytes in the footer."""
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, table.schema, compression="zstd") as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"seal": _SEAL + "0" * _SEAL_LENGTH})
    content = bytearray(buffer.getbuffer())
    place = _seal_place(content)
    content[place : place + _SEAL_LENGTH] = _seal(content, place)
    return content


def is_sound(path: Path) -> bool:
    """Whether a part has the bytes that were written: one that was cut off or changed is made again."""
    try:
        content = path.read_bytes()
        place = _seal_place(content)
    except (OSError, ValueError):
        return False
    return content[place : place + _SEAL_LENGTH] == _seal(content, place)


def _seal_place(content: bytes | bytearray) -> int:
    """Where the footer has the SHA-256.

    Raises:
        ValueError: it has none.
    """
    return content.rindex(_SEAL.encode()) + len(_SEAL)


def _seal(content: bytes | bytearray, place: int) -> bytes:
    found = hashlib.sha256(memoryview(content)[:place])
    found.update(b"0" * _SEAL_LENGTH)
    found.update(memoryview(content)[place + _SEAL_LENGTH :])
    return found.hexdigest().encode()


def _vectors(rows: Sequence[Float32Array | None], kind: pa.FixedSizeListType) -> pa.Array:
    width, dtype = kind.list_size, kind.value_type.to_pandas_dtype()
    values = np.zeros((len(rows), width), dtype)
    missing = np.ones(len(rows), np.bool_)
    for place, one in enumerate(rows):
        if one is not None:
            values[place], missing[place] = one, False
    flat = pa.array(values.ravel(), kind.value_type)
    return pa.FixedSizeListArray.from_arrays(flat, type=kind, mask=pa.array(missing))


def read_counts(path: Path, number: int, settings: Mapping[str, Any]) -> dict[str, int]:
    """What a part says of its rows.

    Raises:
        InputError: it was written with other settings, is another part, or none.
    """
    try:
        found = json.loads(pq.read_schema(path).metadata[_META])
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not from samdeploy label ({error}); remove it, and label again") from None
    match found:
        case {"settings": dict(), "part": int(), "counts": dict(counts)} if all(
            type(n) is int for n in counts.values()
        ):
            pass
        case _:
            raise InputError(f"{path}: not from samdeploy label (odd metadata); remove it, and label again")
    if found["settings"] != json.loads(json.dumps(settings)):
        raise InputError(f"{path}: written with another bundle, input or option; --force begins anew")
    if found["part"] != number:
        raise InputError(f"{path}: holds part {found['part']}; remove it, and run samdeploy label again")
    return counts


def utf8(text: str) -> str:
    """As it is written: file names need not be UTF-8, Parquet's texts are."""
    return text.encode("utf-8", "backslashreplace").decode()
