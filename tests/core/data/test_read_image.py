"""Reading one file: every mode becomes RGB, every kind of damage is named."""

import struct

import numpy as np
import pytest
from PIL import Image

from transfg_core.data.transforms import BadImage, image_size, read_image


def picture(height, width):
    """Every pixel and every channel differs from its neighbours."""
    rows, columns = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([columns, rows, columns ^ rows], -1).astype(np.uint8))


def grey16(path):
    values = np.arange(600, dtype=np.uint16).reshape(20, 30) * 100
    Image.fromarray(values).save(path)
    return np.repeat((values >> 8)[..., None], 3, -1)


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


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("grey.png", in_mode("L")),
        ("bits.png", in_mode("1")),
        ("alpha.png", in_mode("RGBA")),
        ("grey_alpha.png", in_mode("LA")),
        ("print.tif", in_mode("CMYK")),
        ("palette.png", palette),
        ("deep.png", grey16),
        ("deep.tif", grey16),
    ],
)
def test_every_mode_becomes_rgb(tmp_path, name, write):
    expected = write(tmp_path / name)
    image = read_image(tmp_path / name)
    assert (image.mode, image.size) == ("RGB", (30, 20))
    assert (np.array(image) == expected).all()


def test_exif_orientation_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(20, 30).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").size == (30, 20)
    assert image_size(tmp_path / "a.jpg") == (20, 30)


def cut_short(path, suffix):
    whole = path.with_suffix(suffix)
    picture(60, 90).save(whole)
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size * 9 // 10])


def bomb(path):
    picture(2, 2).save(path, "PNG")
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 20000, 20000)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_bytes(b""), "an empty file"),
        (lambda path: path.write_text("<html>404</html>"), "no known image format"),
        (lambda path: path.mkdir(), "directory"),
        (lambda path: cut_short(path, ".jpg"), "truncated"),
        (lambda path: cut_short(path, ".png"), "truncated"),
        (bomb, ""),
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


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_too_many_pixels_without_the_warning_as_error(tmp_path, monkeypatch):
    picture(20, 30).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 599)
    with pytest.raises(BadImage, match="30 x 20 pixels, over 599"):
        read_image(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert read_image(tmp_path / "a.png").size == (30, 20)
