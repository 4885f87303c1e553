"""One figure of an image: the photograph, the selected patches, and every map of the model.

All pictures of a figure show the whole upright photograph. What lies outside of the evaluation
crop, which the model never saw, is grey.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from transfg_core.config.model import ModelConfig
from transfg_core.config.vit import VitConfig
from transfg_core.data.view import View
from transfg_core.explain.drawing import HALO, INK, PAPER, Colour
from transfg_core.explain.labels import map_labels, mask_labels, part_labels
from transfg_core.explain.maps import Explanation
from transfg_core.explain.page import (
    CAPTION,
    Panel,
    inner_width,
    page,
    text_height,
    write,
)
from transfg_core.explain.pictures import boxed, colours, masked, overlay
from transfg_core.inference.predictor import Prediction
from transfg_core.inspection.sheets import FAINT

LONG_SIDE = 560  # pixels of a picture; smaller photographs are enlarged, larger ones reduced
NARROWEST = 320  # pixels; a narrower picture gets white borders, for its title
COLUMNS = 3
TOP = 3  # classes in the header
NAME, CLASS = 30, 20  # sizes of letters
BAR: Colour = (49, 104, 142)  # of a probability; viridis at 1/3
TRACK: Colour = (230, 230, 230)


def figure(
    photograph: Image.Image, explanation: Explanation, model: ModelConfig, source: str
) -> Image.Image:
    """The figure of an image.

    Args:
        photograph: the upright photograph, in any size.
        source: a line that names the trained model.
    """
    shown = fitted(photograph)
    panels = [widened(panel) for panel in panels_of(shown, explanation, model)]
    columns = 2 if len(panels) == 4 else min(COLUMNS, len(panels))
    width = inner_width(panels[0].picture.width, columns)
    return page(header(explanation.prediction, source, width), panels, columns, legend(width))


def fitted(photograph: Image.Image) -> Image.Image:
    """The photograph with a longer side of `LONG_SIDE` pixels."""
    scale = LONG_SIDE / max(photograph.size)
    size = (max(1, round(photograph.width * scale)), max(1, round(photograph.height * scale)))
    return photograph.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def widened(panel: Panel) -> Panel:
    """The panel, with white beside a picture that is narrower than its title may be."""
    picture = panel.picture
    if picture.width >= NARROWEST:
        return panel
    wide = Image.new("RGB", (NARROWEST, picture.height), PAPER)
    wide.paste(picture, (0, 0))
    return panel._replace(picture=wide)


def panels_of(shown: Image.Image, explanation: Explanation, model: ModelConfig) -> list[Panel]:
    """The panels that the model has: photograph, selected patches, and its maps."""
    prediction, view = explanation.prediction, explanation.prediction.view
    size = (shown.height, shown.width)
    seen = np.isfinite(view.spread(np.ones((1, 1)), size))
    panels = [Panel("Photograph", seen_text(view), outlined(shown, view))]
    boxes = shown_boxes(prediction, size)
    if boxes is not None:
        labels, meaning = part_labels(model)
        title = "Selected patches" if isinstance(model, VitConfig) else "Selected tokens"
        panels.append(Panel(title, meaning, boxed(shown, boxes, labels)))
        if isinstance(model, VitConfig):  # those of SwinFC are for the loss alone
            panels.append(Panel(*mask_labels(model), masked(shown, boxes, seen)))
    titles = map_labels(model, prediction.label)
    for name, values in explanation.maps.items():
        panels.append(Panel(*titles[name], overlay(shown, view.spread(values, size))))
    return panels


def seen_text(view: View) -> str:
    """A sentence about the frame, and about pixels that the model sees turned."""
    text = "The model sees what is inside the frame"
    if view.orientation == 1 or view.turned:
        return f"{text}."
    return f"{text}, turned as the file stores it (data.exif is ignore)."


def shown_boxes(prediction: Prediction, size: tuple[int, int]) -> NDArray[np.float64] | None:
    """The selected patches (S, 4) in pixels of a picture of the upright photograph."""
    boxes = prediction.upright_boxes
    if boxes is None:
        return None
    height, width = prediction.view.upright
    scale = np.array([size[1] / width, size[0] / height] * 2)
    scaled: NDArray[np.float64] = boxes * scale
    return scaled


def outlined(shown: Image.Image, view: View) -> Image.Image:
    """The photograph with a thin frame around what the model sees, of one pixel at least."""
    left, top, right, bottom = seen_box(view, (shown.height, shown.width))
    picture = shown.copy()
    pen = ImageDraw.Draw(picture)
    short = min(right - left, bottom - top) + 1  # Pillow draws a wider line outside of the box
    pen.rectangle((left, top, right, bottom), outline=HALO, width=max(1, min(4, short // 2)))
    if short >= 8:
        pen.rectangle((left + 1, top + 1, right - 1, bottom - 1), outline=INK, width=2)
    return picture


def seen_box(view: View, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """First and last column and row of the crop, in a picture of the upright photograph.

    Returns left, top, right, bottom; the last two belong to the box. A crop that is narrower than a
    pixel of the picture has one.
    """
    left, top, right, bottom = view.crop
    whole = np.array([[0, 0, right - left, bottom - top]], np.float64)
    scale = np.array([size[1] / view.upright[1], size[0] / view.upright[0]] * 2)
    box = np.rint(view.to_upright(whole)[0] * scale).astype(int)
    limit = np.array([size[1] - 1, size[0] - 1])
    first = np.minimum(box[:2], limit)
    last = np.clip(box[2:] - 1, first, limit)
    return int(first[0]), int(first[1]), int(last[0]), int(last[1])


def header(prediction: Prediction, source: str, width: int) -> Image.Image:
    """The image's name, the trained model, and the most probable classes with bars."""
    ranked = prediction.top(TOP)
    first = text_height(NAME) + text_height(CAPTION) + 12
    row = text_height(CLASS) + 6
    picture = Image.new("RGB", (width, first + row * len(ranked)), PAPER)
    pen = ImageDraw.Draw(picture)
    write(pen, (0, 0), prediction.name.rpartition("/")[2], NAME, width)
    write(pen, (0, text_height(NAME)), source, CAPTION, width, FAINT)
    bar, number = width // 3, 90
    for place, (label, share) in enumerate(ranked):
        top = first + row * place
        middle = top + CLASS * 0.3, top + CLASS * 1.15
        pen.rectangle((0, middle[0], bar, middle[1]), fill=TRACK)
        pen.rectangle((0, middle[0], max(1, round(bar * share)), middle[1]), fill=BAR)
        write(pen, (bar + 14, top), f"{100 * share:.1f} %", CLASS, number)
        write(pen, (bar + 14 + number, top), label, CLASS, width - bar - number - 14)
    return picture


def legend(width: int) -> Image.Image:
    """The colours of the maps, and what grey means."""
    height = text_height(CAPTION)
    picture = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(picture)
    ramp = colours(np.broadcast_to(np.linspace(0, 1, 160), (14, 160))).round().astype(np.uint8)
    write(pen, (0, 0), "0", CAPTION, 20)
    picture.paste(Image.fromarray(ramp), (16, 5))
    text = "the largest value of this image.   Grey: outside of what the model sees."
    write(pen, (186, 0), text, CAPTION, width - 186)
    return picture
