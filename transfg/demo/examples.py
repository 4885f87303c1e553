"""Pictures to pick: those of a folder, or toy birds for models of toy birds."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transfg.demo.limits import MEGABYTES
from transfg_core.data.bad_image import open_regular
from transfg_core.errors import UserError

MOST = 8  # examples on the page
TOY_CLASSES = (0, 3, 7, 11, 14, 18)  # six that look different
SHOWN = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".webp": "webp", ".gif": "gif"}


def read_examples(folder: Path) -> list[tuple[bytes, str]]:
    """The first pictures of a folder by name, each with its media type.

    Raises:
        UserError: the folder or its pictures cannot be read, or it has none.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SHOWN)[:MOST]
        contents = []
        for path in paths:
            with open_regular(path) as file:
                contents.append(file.read(MEGABYTES * 1_000_000 + 1))
    except OSError as error:
        raise UserError(f"--examples {folder}: cannot read it: {error.strerror}") from error
    if not paths:
        raise UserError(
            f"--examples {folder}: expected pictures ({', '.join(SHOWN)}), found none; choose "
            "another folder"
        )
    kinds = [f"image/{SHOWN[path.suffix.lower()]}" for path in paths]
    return [
        pair for pair in zip(contents, kinds, strict=True) if len(pair[0]) <= MEGABYTES * 1_000_000
    ]


def toy_examples(models: Sequence[Mapping[str, Any]]) -> list[tuple[bytes, str]]:
    """Test images of the toy set that the first model was trained on; none for other models.

    They are drawn here, so that the data set need not be on this machine.
    """
    if models[0]["data"] != "toy":
        return []
    from transfg_core.data.toy.writing import CLASSES, render

    toy, drawn = models[0]["toy"], []
    for label in TOY_CLASSES:
        if label < len(CLASSES):
            rng = np.random.default_rng([toy["seed"], 0, label, 0])  # as `toy/writing.py` does
            image, _ = render(label, toy["size"], rng)
            file = io.BytesIO()
            image.save(file, "JPEG", quality=92, subsampling=0)
            drawn.append((file.getvalue(), "image/jpeg"))
    return drawn
