"""Places in source files, and reasons of errors, as a person looks for them."""

import inspect
import re
import site
import sys
import traceback
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REASON = "Failed reason:"  # in Jittor's errors: what stands before it is a list of functions
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
LONGEST = 300  # characters of a reason


def source_of(function: Any) -> str:
    """`torch/nn/modules/batchnorm.py:137`: file, named from where it is imported, and line."""
    try:
        function = inspect.unwrap(function)
        path = Path(inspect.getsourcefile(function) or "").resolve()
        line = inspect.getsourcelines(function)[1]
    except (TypeError, OSError):
        return ""
    return f"{short(path)}:{line}"


def short(path: Path) -> str:
    """A path without the folder that Python imports it from."""
    folders = [Path(p).resolve() for p in sys.path if p]
    inside = [folder for folder in folders if folder in path.parents]
    if not inside:
        return path.name
    return path.relative_to(max(inside, key=lambda folder: len(folder.parts))).as_posix()


def reason_of(error: BaseException) -> str:
    """The first line of an error's text; of Jittor's, with the reason at its end."""
    text = COLOUR.sub("", str(error)).strip()
    first, _, reason = text.partition("\n")[0], *text.partition(REASON)[1:]
    words = " ".join(reason.split())
    return f"{first} {REASON} {words[:LONGEST]}" if words else first or "no message"


def place_of(error: BaseException) -> str:
    """`model.py:12`: the innermost line of an error that is the user's own, if there is one."""
    frames = traceback.extract_tb(error.__traceback__)
    installed = [Path(p).resolve() for p in [*site.getsitepackages(), sys.base_prefix, sys.prefix]]

    def own(path: Path) -> bool:
        return HERE not in path.parents and not any(p in path.parents for p in installed)

    paths = [(Path(frame.filename).resolve(), frame.lineno) for frame in frames]
    users = [(path, line) for path, line in paths if own(path)]
    path, line = (users or paths)[-1]
    return f"{short(path)}:{line}"
