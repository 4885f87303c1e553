"""Pictures of every kind that the demo must answer, drawn from seeds: name -> bytes."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from transfg_core.data.toy.writing import CLASSES, render


def bird(seed: int, size: int = 160) -> Image.Image:
    """A toy bird."""
    return render(seed % len(CLASSES), size, np.random.default_rng([7, seed]))[0]


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    """A picture as a file's bytes."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def good_pictures(count: int) -> dict[str, bytes]:
    """Birds in all common forms, and the odd ones below."""
    made = dict(odd_pictures())
    forms = [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"), ("BMP", "bmp"), ("TIFF", "tif")]
    for seed in range(max(0, count - len(made))):
        form, ending = forms[seed % len(forms)]
        made[f"bird{seed:03}.{ending}"] = encoded(bird(seed, 90 + 10 * (seed % 20)), form)
    return dict(list(made.items())[:count]) if count < len(made) else made


def odd_pictures() -> dict[str, bytes]:
    """Pictures that a careless decoder gets wrong, each of which has an answer."""
    image = bird(1)
    turned = Image.Exif()
    turned[0x0112] = 6
    deep = np.asarray(image.convert("L"), np.uint16) * 257
    clear = image.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(image.size))
    frames = [bird(seed).convert("P") for seed in range(4)]
    return {
        "cmyk.jpg": encoded(image.convert("CMYK"), "JPEG"),
        "turned.jpg": encoded(image, "JPEG", exif=turned),
        "progressive.jpg": encoded(image, "JPEG", progressive=True),
        "grey.png": encoded(image.convert("L"), "PNG"),
        "deep.png": encoded(Image.fromarray(deep), "PNG"),
        "clear.png": encoded(clear, "PNG"),
        "animated.gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "animated.webp": encoded(
            frames[0].convert("RGB"), "WEBP", save_all=True, append_images=frames[1:]
        ),
        "pixel.png": encoded(Image.new("RGB", (1, 1), (200, 30, 30)), "PNG"),
        "line.png": encoded(Image.new("RGB", (3000, 1), (30, 200, 30)), "PNG"),
        "wide.jpg": encoded(image.resize((4000, 2500)), "JPEG"),
        "bits.png": encoded(image.convert("1"), "PNG"),
    }


def png_of(width: int, height: int, rows: int) -> bytes:
    """A PNG whose header says width x height, with this many rows of black pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    packer = zlib.compressobj(9)
    line = bytes(1 + 3 * width)
    data = b"".join(packer.compress(line) for _ in range(rows)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
