"""Many texts in few bytes: as strings of Python, the names of a million images would take 100 MB more."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np

from samdeploy.arrays import Int64Array, UInt8Array, UInt64Array

# Strings of Python may hold half a surrogate pair: a file name that is no UTF-8, or JSON's "\ud800".
_ERRORS = "surrogatepass"


class _Lazy(Sequence[str]):
    """Texts that are made when they are asked for."""

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return tuple(map(self._text, range(*index.indices(len(self)))))
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._text(int(index) % len(self))

    def _text(self, index: int) -> str:
        raise NotImplementedError


class PackedTexts(_Lazy):
    """Texts to add to, encoded one after the other; neighbours may share a beginning, such as a folder."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._content, self._ends = bytearray(), array("Q")
        self._beginnings, self._beginning_of = list[str](), array("I")
        for text in texts:
            self.append(text)

    def __len__(self) -> int:
        return len(self._ends)

    def append(self, text: str, beginning: str = "") -> None:
        """Add `beginning` + `text`."""
        self._content += text.encode("utf-8", _ERRORS)
        self._ends.append(len(self._content))
        self._beginning_of.append(self._number(beginning))

    def extend(self, content: UInt8Array, ends: UInt64Array, beginning: str = "") -> None:
        """Add texts as `packed` gives them, with `beginning` before each."""
        self._beginning_of.extend([self._number(beginning)] * len(ends))
        self._ends.frombytes((ends + np.uint64(len(self._content))).tobytes())
        self._content += content.tobytes()

    def packed(self) -> tuple[UInt8Array, UInt64Array]:
        """The texts without their beginnings: their bytes, uint8 [n], and where each ends, uint64 [N]; copies."""
        return np.array(self._content, np.uint8), np.array(self._ends, np.uint64)

    def _number(self, beginning: str) -> int:
        if not self._beginnings or self._beginnings[-1] != beginning:
            self._beginnings.append(beginning)
        return len(self._beginnings) - 1

    def _text(self, index: int) -> str:
        start = self._ends[index - 1] if index else 0
        text = self._content[start : self._ends[index]].decode("utf-8", _ERRORS)
        return self._beginnings[self._beginning_of[index]] + text


class _TakenTexts(_Lazy):
    """Some of other texts."""

    def __init__(self, texts: _Lazy, indices: Int64Array) -> None:
        self._texts, self._indices = texts, indices

    def __len__(self) -> int:
        return len(self._indices)

    def _text(self, index: int) -> str:
        return self._texts[int(self._indices[index])]


def take_texts(texts: Sequence[str], indices: Int64Array) -> Sequence[str]:
    """Those at `indices`, int64 [M], in that order; packed ones stay packed."""
    if isinstance(texts, _Lazy):
        return _TakenTexts(texts, indices)
    return tuple(texts[index] for index in indices)
