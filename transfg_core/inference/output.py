"""Predictions as text: a table for people, JSON lines and CSV for programs."""

import csv
import io
import json
from typing import Any

from transfg_core.data.walk import printable
from transfg_core.inference.images import Crop
from transfg_core.inference.predictor import Prediction

WIDEST = 60  # of the names in the table; a longer one moves its own line
DIGITS = 6  # of a probability; float32 has seven


class Writer:
    """Text of results as table, json or csv, with the `top` most probable classes of each."""

    def __init__(self, form: str, top: int, names: int) -> None:
        """`names` is the width of the longest name, for the table."""
        self._form, self._top, self._width = form, top, names

    def header(self) -> str:
        """Text before the first result."""
        if self._form != "csv":
            return ""
        pairs = [(f"class_{k}", f"probability_{k}") for k in range(1, self._top + 1)]
        return _csv(["image", *(name for pair in pairs for name in pair), "error"])

    def line(self, crop: Crop, result: Prediction | None) -> str:
        """Text of one result; `None` stands for an image that could not be read."""
        if self._form == "json":
            return json.dumps(record(crop, result, self._top), ensure_ascii=False) + "\n"
        ranked = result.top(self._top) if result else []
        if self._form == "csv":
            cells = [cell for name, share in ranked for cell in (name, round(share, DIGITS))]
            blank = [""] * (2 * self._top - len(cells))
            return _csv([crop.name, *cells, *blank, crop.error])
        name = printable(crop.name).ljust(min(self._width, WIDEST))
        if not ranked:
            return f"{name}  not read: {crop.error}\n"
        shares = [f"{100 * share:.1f} % {printable(label)}" for label, share in ranked]
        return f"{name}  {', '.join(shares)}\n"


def record(crop: Crop, result: Prediction | None, top: int) -> dict[str, Any]:
    """One result for JSON.

    Width, height and boxes (left, top, right, bottom) are in pixels of the stored image;
    `orientation` is that of its EXIF data, 1 if a browser shows it as stored.
    """
    if result is None:
        return {"image": crop.name, "error": crop.error}
    found: dict[str, Any] = {
        "image": crop.name,
        "top": [
            {"class": name, "probability": round(share, DIGITS)} for name, share in result.top(top)
        ],
        "width": result.view.stored[1],
        "height": result.view.stored[0],
        "orientation": result.view.orientation,
    }
    if result.boxes is not None:
        found["parts"] = [[round(side, 2) for side in box] for box in result.boxes.tolist()]
    return found


def _csv(cells: list[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()
