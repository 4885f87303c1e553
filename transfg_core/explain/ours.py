"""Files that `transfg explain` wrote, and how it knows them again: it replaces no other file.

A figure names the command in its metadata, arrays have names of their own, and the table of the
hardest images has its header.
"""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from transfg_core.data.bad_image import UNREADABLE, open_regular

MADE_BY = "transfg explain"
ARRAYS = {"crop_pixels.npy", "view_crop.npy"}  # in every .npz file of an image
HARDEST_HEADER = ("image", "class", "taken_for", "probability", "update")
# the files of --model; no figure of an image gets one of these names
OF_MODEL = (
    *("filters.png", "positions.png", "confusion.png", "hardest.csv", "hardest.jpg"),
    *("batch_train.jpg", "batch_test.jpg", "part_hits.png"),
)


def made_here(path: Path) -> bool:
    """Whether a file was written by `transfg explain`, so that it may be replaced."""
    try:
        with open_regular(path) as file:
            return MARKS[path.suffix](file)
    except (*UNREADABLE, zipfile.BadZipFile, NotImplementedError):  # the last two of zipfile
        return False


def _of_png(file: BinaryIO) -> bool:
    with Image.open(file, formats=["PNG"]) as picture:
        return picture.info.get("Software") == MADE_BY


def _of_jpeg(file: BinaryIO) -> bool:
    with Image.open(file, formats=["JPEG"]) as picture:
        return picture.info.get("comment") == MADE_BY.encode()


def _of_arrays(file: BinaryIO) -> bool:
    with zipfile.ZipFile(file) as arrays:
        return set(arrays.namelist()) >= ARRAYS


def _of_table(file: BinaryIO) -> bool:
    return file.readline(200).rstrip(b"\r\n") == ",".join(HARDEST_HEADER).encode()


MARKS: dict[str, Callable[[BinaryIO], bool]] = {
    ".png": _of_png,
    ".jpg": _of_jpeg,
    ".npz": _of_arrays,
    ".csv": _of_table,
}


def png_of(picture: Image.Image) -> bytes:
    """The content of a PNG file that names this command."""
    facts, file = PngInfo(), io.BytesIO()
    facts.add_text("Software", MADE_BY)
    picture.save(file, format="PNG", pnginfo=facts)
    return file.getvalue()
