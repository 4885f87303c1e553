"""Reading one file: every mode becomes RGB, every kind of damage is named."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from transfg_core.config.sections import DataConfig
from transfg_core.data.bad_image import BadImage
from transfg_core.data.decoding import image_orientation, image_size, read_image
from transfg_core.data.pixels import UPRIGHT, to_rgb, upright_boxes
from transfg_core.data.walk import AVIF_IS_READ
from transfg_core.errors import RunFailed

RAMP = np.linspace(0, 1, 600).reshape(20, 30)
TONES = np.repeat((RAMP * 65535).astype(np.uint16)[..., None] >> 8, 3, -1)  # RAMP in 8-bit RGB
APPLY = DataConfig(exif="apply")


def picture(height, width):
    """Every pixel and every channel differs from its neighbours."""
    rows, columns = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([columns, rows, columns ^ rows], -1).astype(np.uint8))


def palette(path):
    image = picture(20, 30).quantize(8)
    image.save(path, transparency=bytes(range(0, 256, 32)))
    return np.array(image.convert("RGB"))


def in_mode(mode):
    def write(path):
        image = picture(20, 30).convert(mode)
        image.save(path)
        return np.array(image.convert("RGB"))

    return write


def transparent(path):
    """Stored colours survive a transparency of any degree."""
    image = picture(20, 30)
    image.putalpha(Image.fromarray((RAMP * 255).astype(np.uint8)))
    image.save(path)
    return np.array(picture(20, 30))


def tiff(bits, values, white=1, kind=1):
    """An uncompressed grey TIFF, written by hand: Pillow writes few of these forms."""

    def write(path):
        entries = {256: 30, 257: 20, 258: bits, 259: 1, 262: white, 277: 1, 278: 20, 339: kind}
        data = values if isinstance(values, bytes) else values.tobytes()
        start = 8 + 2 + 12 * (len(entries) + 2) + 4
        rows = [struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in entries.items()]
        rows += [struct.pack("<HHII", tag, 4, 1, n) for tag, n in ((273, start), (279, len(data)))]
        rows.sort(key=lambda row: struct.unpack("<H", row[:2]))
        head = b"II*\0" + struct.pack("<IH", 8, len(rows))
        path.write_bytes(head + b"".join(rows) + bytes(4) + data)

    return write


def packed12(ramp):
    """Two 12-bit values in three bytes."""
    pairs = (ramp * 4095).astype(int).reshape(-1, 2)
    return b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in pairs.tolist())


def pgm(white):
    def write(path):
        values = (RAMP * white).round().astype(">u2").tobytes()
        path.write_bytes(b"P5 30 20 %d\n" % white + values)

    return write


def saved(array):
    return lambda path: Image.fromarray(array).save(path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("grey.png", in_mode("L")),
        ("bits.png", in_mode("1")),
        ("plain.png", in_mode("RGB")),
        ("alpha.png", in_mode("RGBA")),
        ("grey_alpha.png", in_mode("LA")),
        ("print.tif", in_mode("CMYK")),
        ("lab.tif", in_mode("LAB")),
        ("palette.png", palette),
        ("still.gif", in_mode("P")),
        ("transparent.png", transparent),
    ],
)
def test_every_mode_becomes_rgb(tmp_path, name, write):
    expected = write(tmp_path / name)
    image = read_image(tmp_path / name)
    assert (image.mode, image.size) == ("RGB", (30, 20))
    assert (np.array(image) == expected).all()


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("16.png", saved((RAMP * 65535).astype(np.uint16))),
        ("16.tif", saved((RAMP * 65535).astype(np.uint16))),
        ("16-white-is-0.tif", tiff(16, ((1 - RAMP) * 65535).astype("<u2"), white=0)),
        ("16-signed.tif", tiff(16, (RAMP * 32767).astype("<i2"), kind=2)),
        ("12.tif", tiff(12, packed12(RAMP))),
        ("16-in-32.tif", saved((RAMP * 65535).astype(np.int32))),
        ("float.tif", saved(RAMP.astype(np.float32))),
        ("float-white-is-0.tif", tiff(32, (1 - RAMP).astype("<f4"), white=0, kind=3)),
        ("10.pgm", pgm(1023)),
        ("16.pgm", pgm(65535)),
        ("16.jp2", saved((RAMP * 65535).astype(np.uint16))),
    ],
)
def test_deep_grey_keeps_its_tones(tmp_path, name, write):
    write(tmp_path / name)
    pixels = np.array(read_image(tmp_path / name), dtype=int)
    assert pixels.shape == (20, 30, 3)
    assert abs(pixels - TONES).max() <= 1
    assert (pixels.min(), pixels.max()) == (0, 255)


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (saved((RAMP * 200).astype(np.int32)), "values from 0 to 200"),
        (saved((RAMP * 70000).astype(np.int32)), "values from 0 to 70000"),
        (saved((RAMP * 60000 - 1).astype(np.int32)), "values from -1 to 59999"),
        (tiff(16, (RAMP * 900 - 5).astype("<i2"), kind=2), "values from -5 to 895"),
        (tiff(32, (RAMP * (2**32 - 1)).astype("<u4")), "values from 0 to 4294967295, which"),
        (saved((RAMP * 4095).astype(np.uint16)), "16-bit grey with values up to 4095"),
        (tiff(16, (RAMP * 200).astype("<i2"), kind=2), "16-bit grey with values up to 200"),
        (saved((RAMP * 255).astype(np.float32)), "values from 0 to 255"),
        (saved((RAMP * 2 - 1).astype(np.float32)), "values from -1 to 1"),
        (saved(np.where(RAMP > 0.5, np.nan, RAMP).astype(np.float32)), "from nan to nan"),
    ],
)
def test_grey_of_unknown_white_is_refused(tmp_path, write, reason):
    write(tmp_path / "a.tif")
    with pytest.raises(BadImage, match=reason) as caught:
        read_image(tmp_path / "a.tif")
    assert "save" in caught.value.reason


def test_twelve_bits_in_a_16_bit_file_are_not_nearly_black(tmp_path):
    """In a PNG they are refused as in a TIFF; a PGM says that its white is 65535."""
    dark = (RAMP * 4095).astype(np.uint16)
    Image.fromarray(dark).save(tmp_path / "a.png")
    with pytest.raises(BadImage, match="values up to 4095, .*save the image as 8-bit grey"):
        read_image(tmp_path / "a.png")
    Image.fromarray(dark).save(tmp_path / "a.pgm")
    assert np.array(read_image(tmp_path / "a.pgm")).max() == 15


def deep_png(path, values):
    """A PNG with 16-bit colours, by hand: Pillow writes none."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6, 2: 4}[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    content = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_colours_of_twelve_bits_in_a_16_bit_file_are_refused(tmp_path, channels):
    ramp = np.repeat(RAMP[:, :, None], channels, axis=2)
    deep_png(tmp_path / "dark.png", (ramp * 4095).astype(int))
    with pytest.raises(BadImage, match="16-bit colours with values below 4096"):
        read_image(tmp_path / "dark.png")
    deep_png(tmp_path / "full.png", (ramp * 65535).astype(int))
    assert np.array(read_image(tmp_path / "full.png")).max() == 255
    deep_png(tmp_path / "black.png", np.zeros((4, 3, channels), int))
    assert np.array(read_image(tmp_path / "black.png")).max() == 0


def test_black_is_black_in_any_type(tmp_path):
    for kind in (np.int32, np.float32, np.uint16):
        Image.fromarray(np.zeros((4, 3), kind)).save(tmp_path / "a.tif")
        assert np.array(read_image(tmp_path / "a.tif")).max() == 0


COLOURS = {  # mode -> a pixel of it, and the same as RGB
    "1": (255, (255, 255, 255)),
    "L": (70, (70, 70, 70)),
    "LA": ((70, 9), (70, 70, 70)),
    "La": ((35, 128), (70, 70, 70)),
    "RGB": ((10, 20, 30), (10, 20, 30)),
    "RGBA": ((10, 20, 30, 0), (10, 20, 30)),
    "RGBX": ((10, 20, 30, 0), (10, 20, 30)),
    "RGBa": ((10, 20, 30, 128), (20, 40, 60)),
    "CMYK": ((255, 0, 0, 0), (0, 255, 255)),
    "YCbCr": ((76, 85, 255), (254, 0, 0)),
    "HSV": ((170, 255, 255), (0, 0, 255)),
    "LAB": ((255, 128, 128), (255, 255, 255)),
    "I;16": (0x46FF, (70, 70, 70)),
    "I;16L": (0x46FF, (70, 70, 70)),
    "I;16B": (0x46FF, (70, 70, 70)),
    "I": (0x46FF, (70, 70, 70)),
    "F": (0.2745, (70, 70, 70)),
}


@pytest.mark.parametrize("mode", COLOURS)
def test_a_pixel_of_every_mode(mode):
    stored, expected = COLOURS[mode]
    image = to_rgb(Image.new(mode, (2, 2), stored))
    assert image.mode == "RGB"
    assert np.abs(np.subtract(image.getpixel((1, 1)), expected)).max() <= 1


@pytest.mark.parametrize("mode", ["P", "PA"])
def test_a_pixel_of_a_palette(mode):
    image = Image.new(mode, (2, 2), 1 if mode == "P" else (1, 7))
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert to_rgb(image).getpixel((1, 1)) == (10, 20, 30)


def turned(path, turn, format=None):
    exif = Image.Exif()
    exif[0x0112] = turn
    picture(20, 30).save(path, format, exif=exif, **({"quality": 100} if format == "JPEG" else {}))


FORMATS = ["PNG", "TIFF", "JPEG", "WEBP", *(["AVIF"] if AVIF_IS_READ else [])]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("turn", [1, 3, 6, 8, 9])
def test_exif_is_applied_on_demand_alone(tmp_path, format, turn):
    turned(tmp_path / "a", turn, format)
    stored = picture(20, 30)
    upright = stored.transpose(UPRIGHT[turn]) if turn in UPRIGHT else stored
    assert image_size(tmp_path / "a") == (20, 30)
    for expected, data in ((stored, DataConfig()), (upright, APPLY)):
        image = read_image(tmp_path / "a", data)
        assert image.size == expected.size
        if format in ("PNG", "TIFF"):  # without loss
            assert (np.array(image) == np.array(expected)).all()


@pytest.mark.parametrize("turn", range(1, 9))
def test_boxes_turn_with_their_image(tmp_path, turn):
    turned(tmp_path / "a.png", turn)
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[4:9, 2:13] = 255
    box = np.array([[2, 4, 13, 9]], np.float32)
    assert image_orientation(tmp_path / "a.png") == turn
    (moved,), size = upright_boxes(box, (20, 30), turn)
    image = Image.fromarray(pixels)
    image = image.transpose(UPRIGHT[turn]) if turn > 1 else image
    assert size == (image.height, image.width)
    assert tuple(moved) == image.getbbox()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_is_no_orientation(tmp_path):
    picture(20, 30).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01")
    assert read_image(tmp_path / "a.jpg", APPLY).size == (30, 20)


def cut_short(path, suffix):
    whole = path.with_suffix(suffix)
    picture(60, 90).save(whole)
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size * 9 // 10])


def bomb(path, side=20000):
    picture(2, 2).save(path, "PNG")
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", side, side)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_bytes(b""), "an empty file"),
        (lambda path: path.write_text("<html>404</html>"), "no known image format"),
        (lambda path: path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0"), "HEIC"),
        (lambda path: path.mkdir(), "directory"),
        (os.mkfifo, "a pipe"),  # opened without waiting for a writer
        (tiff(64, RAMP.astype("<f8"), kind=3), "or of a kind that Pillow does not read"),
        (lambda path: cut_short(path, ".jpg"), "truncated"),
        (lambda path: cut_short(path, ".png"), "truncated"),
        (bomb, "data.max_megapixels 178"),
    ],
)
def test_bad_files_are_named(tmp_path, damage, reason):
    path = tmp_path / "bird"
    damage(path)
    with pytest.raises(BadImage) as caught:
        read_image(path)
    error = caught.value
    assert (error.path, error.exit_code) == (str(path), 1)
    assert reason in error.reason and "\n" not in error.reason
    assert str(error).startswith(f"{path}: expected an image, found {error.reason}; ")
    assert str(error).endswith("or set data.on_bad_image=skip")


@pytest.fixture
def limit_of_pillow(monkeypatch):
    """Reading raises Pillow's limit for the whole process; this puts it back."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    monkeypatch.setattr("transfg_core.data.decoding.MILLION", 1)


def test_the_setting_limits_megapixels(tmp_path, limit_of_pillow):
    picture(20, 30).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", DataConfig(max_megapixels=600)).size == (30, 20)
    with pytest.raises(BadImage, match="30 x 20 pixels, more than data.max_megapixels 599; raise"):
        read_image(tmp_path / "a.png", DataConfig(max_megapixels=599))


def no_memory(image):
    raise MemoryError


@pytest.mark.parametrize(("side", "said"), [(20, "20 x 20"), (10_500, "10500 x 10500")])
def test_too_little_memory_names_the_image(tmp_path, monkeypatch, side, said):
    """A hundred megapixels need no setting, so the second case gets as far as its memory."""
    bomb(tmp_path / "a.png", side)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", no_memory)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    with pytest.raises(
        RunFailed, match=rf"a\.png: .*memory.*{said} pixels.*data\.threads"
    ) as caught:
        read_image(tmp_path / "a.png")
    assert not isinstance(caught.value, BadImage)  # on_bad_image: skip must not hide it
