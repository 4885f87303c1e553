"""Pixels of any Pillow mode as 8-bit RGB, and the orientation that a file asks for.

Alpha is dropped: a transparent pixel keeps its stored colour. Grey of more than 8 bits is scaled by
what the file says is white, never clipped:

    16-bit grey (TIFF, PNG, PGM, JPEG 2000)    white is 65535; Pillow scales PGM and JPEG 2000 to it
    12-bit grey, signed 16-bit grey (TIFF)     white is 4095, and 32767
    32-bit integer grey                        white is 65535 if the largest value is 256 to 65535
    floating-point grey                        white is 1 if all values are in [0, 1]

Any other 32-bit or floating-point grey is refused, since its white is not known. So is 16-bit grey
of a TIFF or PNG with no value above 4095, which is 12-bit data or nearly black. Pillow opens a
16-bit PNG in mode I or I;16, depending on its version; both give the same result.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# EXIF orientation -> how to turn the stored pixels upright (EXIF 2.32, tag 0x0112).
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
STORED = UPRIGHT | {6: UPRIGHT[8], 8: UPRIGHT[6]}  # back from upright to stored pixels

ORIENTATION = 0x0112  # EXIF and TIFF
BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262  # TIFF
WHITE_IS_ZERO = 0
SAMPLE_FORMAT, UNSIGNED = 339, 1  # TIFF
# Modes that Pillow converts to RGB, and the mode to pass through first.
VIA = {"La": "LA", "RGBa": "RGBA", "P": "RGBA", "PA": "RGBA"}
PLAIN = {"1", "L", "LA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", *VIA}


class UnclearPixels(ValueError):
    """Pixels whose tones are not known; the text says why and what to do."""


def to_rgb(image: Image.Image) -> Image.Image:
    """A loaded image of any mode as 8-bit RGB; the module's docstring has the rules.

    Raises:
        UnclearPixels: the file does not say which value is white.
    """
    if image.mode in PLAIN:
        return image.convert(VIA.get(image.mode, image.mode)).convert("RGB")
    if image.mode.startswith("I;16"):
        grey: NDArray[np.uint8] = _short_grey(image)
    elif image.mode == "I":
        grey = _integer_grey(image)
    elif image.mode == "F":
        grey = _float_grey(np.asarray(image))
    else:
        raise UnclearPixels(f"pixels of mode {image.mode}; save the image as RGB")
    if getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO:
        np.subtract(255, grey, out=grey)  # Pillow inverts only 8 bits and less
    return Image.fromarray(grey).convert("RGB")


def _short_grey(image: Image.Image) -> NDArray[np.uint8]:
    values, bits = np.asarray(image).astype(np.uint16), _tiff_bits(image) or 16
    if bits == 16:
        _refuse_twelve_bits(image, int(values.max()))
    return _shift(values, bits)


def _refuse_twelve_bits(image: Image.Image, high: int) -> None:
    """Refuse 16-bit grey that may be 12-bit data; PGM and JPEG 2000 say how many bits they have."""
    inverted = getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO
    if 0 < high < 4096 and image.format in ("TIFF", "PNG") and not inverted:
        raise UnclearPixels(
            f"16-bit grey with values up to {high}, which do not say whether white is 65535 or "
            "less; scale the values, or save the image as 8-bit grey"
        )


def has_deep_colour(image: Image.Image) -> bool:
    """Whether an opened, not yet loaded TIFF or PNG has colours of 16 bits; Pillow keeps 8."""
    modes = [str(tile[3]) for tile in getattr(image, "tile", []) if image.format == "PNG"]
    return any(";16" in mode for mode in modes) or (
        image.mode in ("RGB", "RGBA", "LA") and _tiff_bits(image) == 16
    )


def refuse_dark_colour(image: Image.Image) -> None:
    """Refuse colours of 16 bits that may be 12-bit data: as 8 bits, none is above 15.

    Raises:
        UnclearPixels: so it is.
    """
    high = int(np.asarray(image).max())
    if 0 < high < 16:
        raise UnclearPixels(
            f"16-bit colours with values below {256 * (high + 1)}, which do not say whether white "
            "is 65535 or less; scale the values, or save the image as 8-bit RGB"
        )


def _integer_grey(image: Image.Image) -> NDArray[np.uint8]:
    values, bits = np.asarray(image), _tiff_bits(image)
    if bits == 32 and getattr(image, "tag_v2", {}).get(SAMPLE_FORMAT, (UNSIGNED,)) == (UNSIGNED,):
        values = values.view(np.uint32)  # Pillow reads them as signed
    low, high = int(values.min()), int(values.max())
    if low >= 0:
        if bits == 16:  # signed, so 15 bits for the tones
            _refuse_twelve_bits(image, high)
            return _shift(values, 15)
        if image.format == "PNG":
            _refuse_twelve_bits(image, high)
        if image.format in ("PNG", "PPM") or high == 0 or 256 <= high <= 65535:
            return _shift(values, 16)
    raise UnclearPixels(
        f"32-bit grey with values from {low} to {high}, which do not say which value is white; "
        "save the image as 8-bit or 16-bit grey"
    )


def _float_grey(values: NDArray[Any]) -> NDArray[np.uint8]:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # also without a number
        raise UnclearPixels(
            f"floating-point grey with values from {low:g} to {high:g}, expected 0 (black) to 1 "
            "(white); scale the image to that range, or save it as 8-bit or 16-bit grey"
        )
    return (values * np.float32(255)).round().astype(np.uint8)


def _shift(values: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """The upper eight of `bits` bits."""
    return (values >> (bits - 8)).astype(np.uint8)


def _tiff_bits(image: Image.Image) -> int | None:
    """Bits per sample of a TIFF; None for another format."""
    bits = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE)
    return int(bits[0]) if bits else None


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of an opened image: 2 to 8, or 1 for stored upright or not known."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # Pillow fails in many ways on damaged EXIF data
        return 1
    return value if value in UPRIGHT else 1


def upright_boxes(
    boxes: NDArray[Any], size: tuple[int, int], turn: int
) -> tuple[NDArray[Any], tuple[int, int]]:
    """Boxes (n, 4) x0, y0, x1, y1 and size (height, width) of stored pixels, turned upright."""
    if turn not in UPRIGHT:
        return boxes, size
    height, width = size
    left, top, right, bottom = boxes.T
    x = (width - right, width - left) if turn in (2, 3, 7, 8) else (left, right)
    y = (height - bottom, height - top) if turn in (3, 4, 6, 7) else (top, bottom)
    if turn >= 5:  # rows become columns
        x, y, size = y, x, (width, height)
    return np.stack([x[0], y[0], x[1], y[1]], axis=-1), size
