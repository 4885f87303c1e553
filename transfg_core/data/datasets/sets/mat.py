"""MATLAB files of lists: arrays of numbers, texts and structs."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from scipy.io.matlab import MatReadError

from transfg_core.errors import UserError

# What scipy raises for files that are cut, damaged, of another type, or of MATLAB 7.3 (HDF5).
UNREADABLE = (OSError, ValueError, TypeError, KeyError, IndexError, NotImplementedError,
              OverflowError, EOFError, zlib.error, MemoryError,
              MatReadError)  # fmt: skip


def read_mat(path: Path, names: Sequence[str]) -> list[Any]:
    """The variables of these names; arrays without axes of length 1, structs with attributes.

    Raises:
        UserError: the file cannot be read, or a variable is absent.
    """
    try:
        content = scipy.io.loadmat(str(path), squeeze_me=True, struct_as_record=False)
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: expected a MATLAB file, found none; is the copy complete?"
        ) from error
    except UNREADABLE as error:
        raise UserError(
            f"{path}: expected a MATLAB file, but reading it failed "
            f"({' '.join(str(error).split())[:200]}); copy it again"
        ) from error
    missing = [name for name in names if name not in content]
    if missing:
        known = [name for name in content if not name.startswith("__")]
        raise UserError(
            f"{path}: expected the variable {missing[0]}, found {', '.join(known) or 'none'}; is "
            "this the right file?"
        )
    return [content[name] for name in names]


def texts(value: Any) -> list[str]:
    """The texts of a cell array, or the single text of a shorter one."""
    return [str(item) for item in np.atleast_1d(value)]


def integers(path: Path, name: str, value: Any, low: int, high: int) -> list[int]:
    """A variable's integers, each in [low, high], whatever type MATLAB gave them.

    Raises:
        UserError: one is none, or out of range; the text names its place.
    """
    items = np.atleast_1d(value).ravel().tolist()
    wrong = [
        (place, item)
        for place, item in enumerate(items, 1)
        if not isinstance(item, int | float) or not low <= item <= high or int(item) != item
    ]
    if wrong:
        place, item = wrong[0]
        raise UserError(
            f"{path}, {name}({place}): expected an integer from {low} to {high}, found {item!r} "
            f"({len(wrong)} of {len(items)} values are wrong); copy the file again"
        )
    return [int(item) for item in items]
