"""The embedded data set: procedural birds in the layout of CUB-200-2011 (Wah et al. 2011).

There are two more files than in CUB. `part_boxes.txt` holds `image_id part x y width height`: one
line for each of the five discriminative parts of each image, marked or not. `toy.json` holds the
settings. An image depends only on (seed, split, class, number within the split), not on the size
of the set. `birds.py` draws the birds.
"""

import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from transfg_core.config.sections import ToyConfig
from transfg_core.data.toy.birds import CLASSES, Box, draw_bird
from transfg_core.data.whole_folder import one_writer, write_whole
from transfg_core.errors import UserError

__all__ = ["CLASSES", "ensure_toy", "render", "write_toy"]

FORMAT = 1  # increase it when any picture or file changes


def render(
    class_index: int, size: int, rng: np.random.Generator
) -> tuple[Image.Image, dict[str, Box]]:
    """Draw one bird: an RGB image of size x size, and part -> (x, y, width, height) in pixels."""
    image, _, boxes = draw_bird(class_index, size, rng)
    return image, boxes


def ensure_toy(root: Path, toy: ToyConfig, report: Callable[[str], None] = print) -> None:
    """Write the set at `root` unless it exists; a second process waits until the first is done.

    Raises:
        UserError: `root` holds a toy set of other settings, or other files.
        RunFailed: the disk is full or not writable.
    """
    with one_writer(root.resolve().parent, "the toy set"):
        if _settings_at(root) is None:
            write_toy(root, toy, report)
        else:
            require_toy(root, toy)


def require_toy(root: Path, toy: ToyConfig) -> None:
    """Check that the set is at `root`, without writing anything.

    Raises:
        UserError: there is none, it has other settings, or `root` holds other files.
    """
    found, expected = _settings_at(root), _settings(toy)
    if found is None:
        options = [f"--{key.replace('_', '-')} {value}" for key, value in toy.model_dump().items()]
        raise UserError(
            f"{root}: expected the toy set, found no files; set data.root, or render it with "
            f"`transfg toy {shlex.quote(str(root))} {' '.join(options)}`"
        )
    if found != expected:
        differing = [key for key in {**expected, **found} if found.get(key) != expected.get(key)]
        problems = ", ".join(
            f"{key} expected {expected.get(key)!r}, found {found.get(key)!r}" for key in differing
        )
        raise UserError(
            f"{root}: toy set of other settings: {problems}; "
            "delete the folder, or set data.root to another folder"
        )


def write_toy(root: Path, toy: ToyConfig, report: Callable[[str], None] = print) -> None:
    """Render the set into a new folder `root`; a failure leaves nothing behind.

    Raises:
        UserError: `root` is not empty.
        RunFailed: the disk is full or not writable.
    """
    root = root.resolve()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(
            f"{root}: expected an empty folder or none, found files; "
            "delete them, or set data.root to another folder"
        )
    count = len(CLASSES) * (toy.train_per_class + toy.test_per_class)
    report(f"{root}: rendering {count} toy images of {toy.size} x {toy.size}")
    write_whole(root, lambda folder: _write_files(folder, toy), "the toy set")


def _settings(toy: ToyConfig) -> dict[str, object]:
    return {"format": FORMAT, **toy.model_dump()}


def _settings_at(root: Path) -> dict[str, object] | None:
    """The settings in `toy.json`; None if the folder is absent or empty."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return None
    try:
        found = json.loads((root / "toy.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{root}: expected a toy set or an empty folder, found other files ({error}); "
            "set data.root to another folder, or set data.name to the data set in this folder"
        ) from error
    return found if isinstance(found, dict) else {}


def _samples(toy: ToyConfig) -> Iterator[tuple[int, int, int, np.random.Generator]]:
    """For each image: class index, file number from 1, 1 if it is for training, generator."""
    for label in range(len(CLASSES)):
        for number in range(toy.train_per_class + toy.test_per_class):
            train = number < toy.train_per_class
            within = number if train else number - toy.train_per_class
            yield (
                label,
                number + 1,
                int(train),
                np.random.default_rng([toy.seed, int(train), label, within]),
            )


def _write_files(folder: Path, toy: ToyConfig) -> None:
    """Write every file of the set; image ids count from 1 in the order of classes."""
    folders = [f"{label:03d}.{name}" for label, name in enumerate(CLASSES, 1)]
    for name in folders:
        (folder / "images" / name).mkdir(parents=True)
    names = ("images", "image_class_labels", "train_test_split", "bounding_boxes", "part_boxes")
    lines: dict[str, list[str]] = {name: [] for name in names}
    for image_id, (label, number, train, rng) in enumerate(_samples(toy), 1):
        path = f"{folders[label]}/{CLASSES[label]}_{number:04d}.jpg"
        image, bird, boxes = draw_bird(label, toy.size, rng)
        image.save(folder / "images" / path, quality=92, subsampling=0)
        lines["images"].append(f"{image_id} {path}")
        lines["image_class_labels"].append(f"{image_id} {label + 1}")
        lines["train_test_split"].append(f"{image_id} {train}")
        lines["bounding_boxes"].append(_box_line(image_id, bird))
        for part, box in boxes.items():
            lines["part_boxes"].append(_box_line(f"{image_id} {part}", box))
    lines["classes"] = [f"{label} {name}" for label, name in enumerate(folders, 1)]
    for name, rows in lines.items():
        (folder / f"{name}.txt").write_text("\n".join(rows) + "\n", "utf-8", newline="\n")
    settings = json.dumps(_settings(toy), indent=1) + "\n"
    (folder / "toy.json").write_text(settings, "utf-8", newline="\n")


def _box_line(key: int | str, box: Box) -> str:
    return f"{key} " + " ".join(f"{value:.1f}" for value in box)
