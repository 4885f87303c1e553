"""What the recordings of a side depend on: files of source, and versions of what is installed.

    used = UsedFiles()
    used.digests([pair_file])  # {path: digest} of it and of every imported file that may change

Source that lies outside of the standard library and of installed distributions may be edited at
any time, so its text counts. An installed distribution counts by its version and list of files.
"""

import hashlib
import site
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

from parity.errors import ParityError

DIGITS = 16  # of SHA-256, in hexadecimal
OWN = Path(__file__).resolve().parents[1]  # this program counts as a whole (`own_source`)
COMPILED = "/.cache/jittor/"  # Jittor compiles modules for itself when it runs
ROOMS = ("comparison", "matching", "recording")  # of this program: those that record


class UsedFiles:
    """Digests of the source that a process has imported; a file is read once, when first seen."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        folders = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]
        installed = [*site.getsitepackages(), site.getusersitepackages()]
        self.standard = [Path(folder).resolve() for folder in folders]
        self.installed = [Path(folder).resolve() for folder in installed]
        self.packages = packages_distributions()

    def digests(self, more: Iterable[Path] = ()) -> dict[str, str]:
        """Path -> digest, of every such file by now and of `more`."""
        for path in [*more, *self._sources()]:
            name = str(path.resolve())
            if name not in self.known and path.is_file():
                self.known[name] = file_digest(path)
        return dict(sorted(self.known.items()))

    def versions(self) -> dict[str, str]:
        """Distribution -> version and digest of its list of files, of each that is imported."""
        names = {name.partition(".")[0] for name in sys.modules}
        found = {each for name in names for each in self.packages.get(name, ())}
        return {name: _version(name) for name in sorted(found)}

    def _sources(self) -> Iterable[Path]:
        """The file of every imported module that is neither installed nor Python's own."""
        for name, module in [*sys.modules.items()]:
            file = getattr(module, "__file__", None)
            top = name.partition(".")[0]
            path = Path(file).resolve() if isinstance(file, str) else OWN
            if OWN in (path, *path.parents) or COMPILED in path.as_posix():
                continue
            if any(folder in path.parents for folder in self.installed):
                if top not in self.packages:
                    yield path
            elif not any(folder in path.parents for folder in self.standard):
                yield path


def _version(name: str) -> str:
    """The version, with a digest of the list of files: one version may be built more than once."""
    found = distribution(name)
    listed = found.read_text("RECORD") or ""
    return f"{found.version} {hashlib.sha256(listed.encode()).hexdigest()[:DIGITS]}"


def own_source() -> str:
    """A digest of this program's code, as far as recordings depend on it."""
    state = hashlib.sha256()
    for room in ROOMS:
        for path in sorted((OWN / room).rglob("*.py")):
            state.update(path.read_bytes())
    return state.hexdigest()[:DIGITS]


def file_digest(path: Path) -> str:
    """Of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:DIGITS]


def built_digest(built: object) -> str:
    """Of what a builder returned, if that is data: bytes, or a protobuf message such as ONNX's."""
    data = built if isinstance(built, bytes) else getattr(built, "SerializeToString", bytes)()
    return hashlib.sha256(data).hexdigest()[:DIGITS]


def refuse_two_versions(label: str, first: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Refuse files that have changed while they were used.

    Raises:
        ParityError: one has.
    """
    for name in first:
        if now.get(name, first[name]) != first[name]:
            raise ParityError(
                f"{label}: {name} has changed while it was recorded; run the command again"
            )


def changed_files(digests: Mapping[str, str]) -> list[str]:
    """The files that are missing now or have other bytes."""
    return [
        name
        for name, known in digests.items()
        if not Path(name).is_file() or file_digest(Path(name)) != known
    ]
