"""Arguments that several commands share."""

import json
import os
import re
import stat
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from transfg_core.backend import BACKENDS
from transfg_core.errors import UserError

KEY = re.compile(r"(run|data|model|loss|optim|train)(\.\w+)*=")


def one_of(option: str, value: str, known: Collection[str]) -> str:
    """Return the value if it is among the known ones.

    Raises:
        UserError: it is not.
    """
    if value not in known:
        raise UserError(f"{option} {value}: expected one of {', '.join(known)}")
    return value


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words that name files, and those that are `section.key=value`.

    A file of such a name counts as a file.
    """
    overrides = [word for word in words if KEY.match(word) and not os.path.lexists(word)]
    return [word for word in words if word not in overrides], overrides


RUN_FILES = ("config.yaml", "env.json", "metrics.jsonl", "summary.csv", "predictions.csv")


def check_file(
    option: str,
    path: Path | None,
    make_parents: bool = False,
    suffixes: Collection[str] = (),
    source: Path | None = None,
) -> None:
    """Refuse a file that could not or should not be written, before any work; None passes.

    `suffixes` are the allowed endings of its name; `source` is a file that must stay as it is.

    Raises:
        UserError: it is a folder or a device, its folder is absent or not writable, or writing it
            would replace the source or a checkpoint of a run.
    """
    if path is None:
        return
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = None
    except OSError as error:
        raise UserError(f"{option} {path}: cannot write there: {error.strerror}") from error
    if mode is not None and not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "something else"
        raise UserError(f"{option} {path}: expected the name of a file to write, found {kind}")
    if suffixes and path.suffix.lower() not in suffixes:
        raise UserError(f"{option} {path}: expected a name ending in {' or '.join(suffixes)}")
    if source and path.exists() and source.exists() and path.samefile(source):
        raise UserError(f"{option} {path}: would replace the file that is read; choose another")
    if path.parent.name == "checkpoints" and path.exists():
        raise UserError(f"{option} {path}: would replace a checkpoint of a run; choose another")
    if path.name == "split.csv":  # a later command would take it for the split of a run
        raise UserError(f"{option} {path}: expected another name than that of a run's split")
    if path.exists() and path.name in RUN_FILES and (path.parent / "config.yaml").exists():
        raise UserError(f"{option} {path}: would replace a file of a run; choose another")
    _check_writable(f"{option} {path}", path.parent, make_parents)


def check_folder(option: str, path: Path) -> None:
    """Refuse a folder that could not be made or written, before any work.

    Raises:
        UserError: it or the nearest existing folder above it is not writable, or is a file.
    """
    _check_writable(f"{option} {path}", path, make=True)


def _check_writable(place: str, folder: Path, make: bool) -> None:
    nearest = folder
    while make and not os.path.lexists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        found = f"{nearest} is no folder" if os.path.lexists(nearest) else "no such folder"
        raise UserError(f"{place}: {found}; make it first, or choose another place")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"{place}: {nearest} is not writable; choose another place")


def write_json(path: Path | None, record: Any) -> None:
    """Write a result to `path` as JSON; do nothing without a path."""
    from transfg_core.checkpoints.file import replace_file
    from transfg_core.run.metrics_log import clean

    if path:
        replace_file(path, (json.dumps(clean(record), indent=1) + "\n").encode())


BackendName = Annotated[
    str,
    typer.Option(
        "--backend",
        "-b",
        help="torch or jittor",
        callback=lambda name: one_of("--backend", name, tuple(BACKENDS)),
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="key=value, such as optim.lr=0.01", metavar="[KEY=VALUE]..."),
]
Checkpoint = Annotated[Path, typer.Argument(help="a .safetensors checkpoint of a run")]
