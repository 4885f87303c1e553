"""Maps and boxes drawn over a photograph, with Pillow alone.

Sizes and boxes are in pixels of the upright photograph: as a browser shows it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from transfg_core import fonts
from transfg_core.explain.drawing import CHOSEN, HALO, INK, outline

# viridis at 0, 1/16, ..., 1: lightness grows evenly with the value, also for colour-blind readers
# (van der Walt and Smith 2015, matplotlib; CC0)
VIRIDIS = np.array(
    [
        *((68, 1, 84), (72, 24, 106), (71, 45, 123), (66, 64, 134)),
        *((59, 82, 139), (51, 99, 141), (44, 114, 142), (38, 130, 142)),
        *((33, 145, 140), (31, 160, 136), (40, 174, 128), (63, 188, 115)),
        *((94, 201, 98), (132, 212, 75), (173, 220, 48), (216, 226, 25)),
        *((253, 231, 37),),
    ],
    np.float64,
)
OPACITY = 0.6
UNSEEN = 0.35  # brightness, without colour, of what lies outside of the crop
DIMMED = 0.3  # brightness of what the part layer does not see
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in Pillow's conversion to grey
SHARE = 30  # the letters of a tag are this part of the picture's shorter side,
SMALLEST = 15  # but not smaller than this, in pixels
MOST = 4  # labels in one tag; of more, only the first stand there


def colours(values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """The colours of values from 0 to 1: (...) -> (..., 3) from 0 to 255."""
    stops = np.linspace(0, 1, len(VIRIDIS))
    channels = [np.interp(values, stops, VIRIDIS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1)


def overlay(
    photograph: Image.Image, values: NDArray[np.floating[Any]], opacity: float = OPACITY
) -> Image.Image:
    """A map over the photograph, dark blue for 0 to yellow for 1.

    Args:
        values: (height, width) of the photograph, from 0 to 1; not-a-number where the model saw
            nothing. There the photograph is grey and dark.
    """
    pixels = np.asarray(photograph.convert("RGB"), np.float64)
    assert values.shape == pixels.shape[:2], f"{values.shape}, expected {pixels.shape[:2]}"
    seen = np.isfinite(values)[..., None]
    mixed = (1 - opacity) * pixels + opacity * colours(np.nan_to_num(values).clip(0, 1))
    return to_image(np.where(seen, mixed, unseen(pixels)))


def unseen(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pixels (H, W, 3) as those outside of the crop are shown: grey and dark."""
    return np.repeat(UNSEEN * (pixels @ LUMA)[..., None], 3, axis=2)


def masked(
    photograph: Image.Image, boxes: NDArray[np.floating[Any]], seen: NDArray[np.bool_]
) -> Image.Image:
    """The photograph with everything dimmed but the boxes (n, 4), and grey where not `seen`."""
    pixels = np.asarray(photograph.convert("RGB"), np.float64)
    bright = np.full(pixels.shape[:2], DIMMED)
    for left, top, right, bottom in np.rint(boxes).astype(int):
        bright[top:bottom, left:right] = 1
    return to_image(np.where(seen[..., None], bright[..., None] * pixels, unseen(pixels)))


def boxed(
    photograph: Image.Image, boxes: NDArray[np.floating[Any]], labels: Sequence[str]
) -> Image.Image:
    """The photograph with a frame around each box, and the numbers of the heads that chose it.

    Equal boxes share one frame.

    Args:
        boxes: (S, 4) left, top, right, bottom.
        labels: one of each box, such as the number of its head.
    """
    picture = photograph.convert("RGB")
    pen = ImageDraw.Draw(picture)
    shared: dict[tuple[float, ...], list[str]] = {}
    for box, label in zip(boxes.tolist(), labels, strict=True):
        shared.setdefault(tuple(box), []).append(label)
    short = min(picture.size)
    width = max(2, round(short / 200))
    for box in shared:
        outline(pen, np.array(box), CHOSEN, width)
    for box, names in shared.items():  # above all frames
        write_tag(pen, box, tag(names), max(SMALLEST, round(short / SHARE)), picture.size)
    return picture


def tag(names: Sequence[str]) -> str:
    """The labels of one frame, each once; of many the first, and how many more: `1, 2, 3, +5`."""
    unique = list(dict.fromkeys(names))
    if len(unique) > MOST:
        unique = [*unique[: MOST - 1], f"+{len(unique) - MOST + 1}"]
    return ", ".join(unique)


def write_tag(
    pen: ImageDraw.ImageDraw,
    box: Sequence[float],
    text: str,
    size: int,
    limit: tuple[int, int],
) -> None:
    """Write a label on a small orange plate at the upper left of a box, inside the picture."""
    font = fonts.load(fonts.PILLOW, size)
    width, height = font.getlength(text) + 0.5 * size, 1.25 * size
    left = min(max(0, box[0]), limit[0] - width)
    top = min(max(0, box[1] - height), limit[1] - height)
    pen.rectangle((left, top, left + width, top + height), fill=CHOSEN, outline=HALO)
    pen.text((left + width / 2, top + height / 2), text, fill=INK, font=font, anchor="mm")


def to_image(pixels: NDArray[np.float64]) -> Image.Image:
    """Numbers from 0 to 255, (H, W, 3), as a picture."""
    return Image.fromarray(pixels.round().astype(np.uint8))
