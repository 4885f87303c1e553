"""Many texts, such as the paths of a data set, in one block of memory.

Millions of `str` take some 60 bytes each beside their characters, in this process and again in each
worker process. Here a text takes its characters in UTF-8 and 8 bytes.
"""

from collections.abc import Iterable, Iterator, Sequence
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Names(Sequence[str]):
    """A sequence of texts, equal to any other sequence of the same texts.

    Undecodable bytes of file names, which Python has as lone surrogates, are kept.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
        self._prefix = ""
        self._block = b"".join(encoded)
        self._ends: NDArray[np.int64] = np.cumsum([0, *map(len, encoded)], dtype=np.int64)

    def below(self, folder: str) -> "Names":
        """Paths in a folder, in the same block: `folder` and a slash before each text."""
        found = Names(())
        found._prefix = f"{folder.rstrip('/')}/" if folder else ""
        found._block, found._ends = self._block, self._ends
        return found

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, key: Any) -> Any:
        """The text at an index, or the texts of a slice."""
        if isinstance(key, slice):
            return tuple(self[place] for place in range(*key.indices(len(self))))
        place = index(key)
        if not -len(self) <= place < len(self):
            raise IndexError(f"expected an index below {len(self)}, found {place}")
        return self._at(place % len(self))

    def _at(self, place: int) -> str:
        text = self._block[self._ends[place] : self._ends[place + 1]]
        return self._prefix + text.decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        ends = self._ends.tolist()
        for start, end in zip(ends, ends[1:], strict=False):
            yield self._prefix + self._block[start:end].decode("utf-8", "surrogateescape")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str | bytes):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        first = ", ".join(map(repr, self[:3]))
        return f"Names([{first}{', ...' if len(self) > 3 else ''}]) of {len(self)}"
