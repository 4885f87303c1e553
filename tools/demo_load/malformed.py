"""Files that are no proper pictures, from a seed: truncated, with flipped bits, bombs, other types.

Some of the changed files can still be decoded; then an ordinary answer is right.
"""

import gzip
import io
import pickle
import struct
import zipfile
from collections.abc import Iterator

import numpy as np

from tools.demo_load.pictures import bird, encoded, good_pictures, png_of

FORMS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "TGA", "JPEG2000")


def malformed_files(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """`count` files with names that say what is wrong; the fixed ones first."""
    fixed = [*wrong_types(), *bombs()]
    yield from fixed[:count]
    rng = np.random.default_rng(seed)
    real = {form.lower(): encoded(bird(seed), form) for form in FORMS} | good_pictures(12)
    names = list(real)
    for number in range(count - len(fixed)):
        name = names[int(rng.integers(len(names)))]
        change = (cut, flip, swap)[number % 3]
        yield f"{number:03} {change.__name__} {name}", change(real[name], rng)


def cut(content: bytes, rng: np.random.Generator) -> bytes:
    """A beginning of the file."""
    return content[: int(rng.integers(1, len(content)))]


def flip(content: bytes, rng: np.random.Generator) -> bytes:
    """A few bits flipped, most of them near the head, where a file says what it is."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 30))):
        limit = len(changed) if rng.random() < 0.5 else min(200, len(changed))
        changed[int(rng.integers(limit))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def swap(content: bytes, rng: np.random.Generator) -> bytes:
    """A stretch of the file replaced by random bytes."""
    start = int(rng.integers(len(content)))
    length = int(rng.integers(1, 400))
    return content[:start] + rng.bytes(length) + content[start + length :]


def wrong_types() -> list[tuple[str, bytes]]:
    """Files of other kinds, some of which other programs would run."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("a.txt", "a" * 100)
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    return [
        ("one byte", b"\xff"),
        ("text", b"This is no picture.\n" * 50),
        ("html", b"<html><script>alert(1)</script></html>"),
        ("svg", svg),
        ("eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%id) (w) file\n"),
        ("pdf", b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n%%EOF"),
        ("zip", archive.getvalue()),
        ("gzip", gzip.compress(b"a" * 1000)),
        ("pickle", pickle.dumps({"a": [1, 2, 3]})),
        ("elf", b"\x7fELF" + bytes(200)),
        ("zeros", bytes(5000)),
        ("noise", np.random.default_rng(0).bytes(50_000)),
        ("heic", b"\0\0\0\x18ftypheic" + bytes(400)),
    ]


def bombs() -> list[tuple[str, bytes]]:
    """Small files that claim, or have, very many pixels."""
    gif = encoded(bird(0).convert("P"), "GIF")
    bmp = bytearray(encoded(bird(0), "BMP"))
    bmp[18:26] = struct.pack("<ii", 2_000_000_000, 2_000_000_000)
    jpeg = bytearray(encoded(bird(0), "JPEG"))
    place = jpeg.index(b"\xff\xc0") + 5
    jpeg[place : place + 4] = b"\xff\xff\xff\xff"
    return [
        ("png of 100 megapixels", png_of(10_000, 10_000, 10_000)),
        ("png that claims 10^18 pixels", png_of(1 << 30, 1 << 30, 0)),
        ("png of 49 megapixels without rows", png_of(7_000, 7_000, 0)),
        ("png of 49 megapixels, cut", png_of(7_000, 7_000, 3_000)),
        ("gif that claims 65535 x 65535", gif[:6] + b"\xff\xff\xff\xff" + gif[10:]),
        ("bmp that claims 4 * 10^18 pixels", bytes(bmp)),
        ("jpeg that claims 65535 x 65535", bytes(jpeg)),
    ]
