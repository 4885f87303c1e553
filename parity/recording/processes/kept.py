"""Which recordings of a folder may be used again: the key of each, and what was said of it."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from parity.recording.depends import changed_files

KEYS = "recordings.json"


class Kept:
    """Name of a recording -> its key and the answer of the process that made it, in one file."""

    def __init__(self, folder: Path, fresh: bool) -> None:
        self.path = folder / KEYS
        self.entries: dict[str, dict[str, Any]] = {}
        if self.path.is_file() and not fresh:
            self.entries = json.loads(self.path.read_text())
        self._writing = Lock()  # both sides record at the same time

    def key(self, name: str) -> str:
        """The key of a recording that is there."""
        return str(self.entries[name]["key"])

    def answer(self, name: str, key: str) -> dict[str, Any] | None:
        """What was said of a recording; None if it has another key or imported what has changed."""
        entry = self.entries.get(name)
        if entry is None or entry["key"] != key or changed_files(entry["answer"]["files"]):
            return None
        answer: dict[str, Any] = entry["answer"]
        return answer

    def add(self, name: str, key: str, answer: Mapping[str, Any]) -> None:
        """Keep a recording that was just made."""
        with self._writing:
            self.entries[name] = {"key": key, "answer": answer}
            self._write()

    def drop(self, names: Iterable[str]) -> None:
        """Forget recordings."""
        with self._writing:
            for name in names:
                del self.entries[name]
            self._write()

    def _write(self) -> None:
        temporary = self.path.with_name(f".{KEYS}.part")
        temporary.write_text(json.dumps(self.entries))
        temporary.replace(self.path)


def digest_of(facts: Any) -> str:
    """A digest of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
