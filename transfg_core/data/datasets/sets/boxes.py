"""Boxes of objects and parts: rows of text, and the XML annotations of Stanford Dogs.

bounding_boxes.txt   <image id> <x> <y> <width> <height>           CUB-200-2011, NABirds
part_boxes.txt       <image id> <part name> <x> <y> <width> <height>      the toy set
"""

import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterator
from math import isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transfg_core.data.datasets.regions import Corners
from transfg_core.data.datasets.sets.rows import Rows, lines_of
from transfg_core.errors import UserError

CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_bounding_boxes(path: Path, images: Rows) -> list[Corners]:
    """The box of each image, in the order of `images`, the rows of images.txt.

    Raises:
        UserError: the file is absent or malformed, or an image has no box; the text names the line.
    """
    boxes: dict[str, Corners] = {}
    for line, key, box in _rows(path, images, ""):
        if key in boxes:
            raise UserError(f"{path}:{line}: expected one box for each image, found two of {key}")
        boxes[key] = box
    missing = [key for key in images if key not in boxes]
    if missing:
        raise UserError(
            f"{path}: expected a box for each image, found none for image id {missing[0]} "
            f"({len(missing)} of {len(images)} images have none); is the copy complete?"
        )
    return [boxes[key] for key in images]


def read_part_boxes(path: Path, images: Rows) -> tuple[NDArray[np.float32], ...] | None:
    """Boxes of each image, (n, 4) as x0, y0, x1, y1; None if the file does not exist.

    Raises:
        UserError: a row is malformed; the text names the line.
    """
    if not path.is_file():
        return None
    boxes: dict[str, list[Corners]] = defaultdict(list)
    for _, key, box in _rows(path, images, "part_name "):
        boxes[key].append(box)
    return tuple(np.array(boxes[key], dtype=np.float32).reshape(-1, 4) for key in images)


def _rows(path: Path, images: Rows, name: str) -> Iterator[tuple[int, str, Corners]]:
    """Line, image id and box of each row; `name` says whether a name may stand before the box."""
    for line, text in lines_of(path):
        key, *rest = text.split()
        try:
            x, y, width, height = (float(field) for field in rest[-4:])
            well_formed = (len(rest) >= 5) if name else (len(rest) == 4)
            well_formed &= min(width, height) > 0 and isfinite(x + y + width + height)
        except ValueError:
            well_formed = False
        if not well_formed:
            raise UserError(
                f"{path}:{line}: expected `image_id {name}x y width height`, found {text!r}"
            )
        if key not in images:
            raise UserError(
                f"{path}:{line}: expected an image id from images.txt, found image id {key}; "
                "do the files belong together?"
            )
        yield line, key, (x, y, x + width, y + height)


def read_annotation(path: Path) -> Corners:
    """The smallest box around all objects of one annotation in XML (`object/bndbox/xmin`, ...).

    Raises:
        UserError: the file is absent or malformed, or holds no object.
    """
    try:
        tree = ET.fromstring(path.read_bytes())
        boxes = [
            [float(box.findtext(name) or "none") for name in CORNERS] for box in tree.iter("bndbox")
        ]
    except (OSError, ET.ParseError, ValueError, LookupError) as error:
        raise UserError(
            f"{path}: expected an annotation with the box of each object, but reading it failed "
            f"({type(error).__name__}: {error}); copy it again, or leave data.box_crop out"
        ) from error
    if not boxes:
        raise UserError(
            f"{path}: expected the box of an object (bndbox), found none; copy it again, or leave "
            "data.box_crop out"
        )
    left, top, right, bottom = zip(*boxes, strict=True)
    return min(left), min(top), max(right), max(bottom)
