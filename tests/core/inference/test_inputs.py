"""Which images the words of a command name."""

import io
import os

import pytest
from PIL import Image

from transfg_core.errors import UserError
from transfg_core.inference.inputs import STDIN_NAME, find_inputs


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Four images in two folders and beside them, and a file that is none."""
    monkeypatch.chdir(tmp_path)
    for name in ("b/2.png", "b/1.jpg", "a/deep/3.png", "[x].png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "b/notes.txt").write_text("?")
    return tmp_path


def names(*words, stdin=b""):
    return [image.name for image in find_inputs(words, io.BytesIO(stdin)).images]


def test_words_keep_their_order_and_folders_are_sorted(place):
    assert names("b/2.png", "b", "a") == ["b/2.png", "b/1.jpg", "b/2.png", "a/deep/3.png"]
    found = find_inputs(["b"], io.BytesIO())
    assert [note for note in found.notes if "notes.txt" in note and "b: left out: 1" in note]


def test_patterns(place):
    assert names("b/*.png") == ["b/2.png"]
    assert names("**/*.png") == ["[x].png", "a/deep/3.png", "b/2.png"]
    assert names("[x].png") == ["[x].png"], "a file of this name is no pattern"


def test_an_absent_file_is_an_image_with_an_error(place):
    assert names("absent.png") == ["absent.png"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"b/2.png\r\na\n\n", ["b/2.png", "a/deep/3.png"]),
        (b"b/2.png\0b/*.jpg\0", ["b/2.png", "b/1.jpg"]),
        (b"-\nb/2.png", ["b/2.png"]),
        ("Möwe.png\n".encode(), ["Möwe.png"]),
        (b"M\xf6we.png\0", ["M\\xf6we.png"]),
        (b"\xef\xbb\xbfb/2.png\n", ["b/2.png"]),
        (b"\xff\xd8\xff broken", [STDIN_NAME]),
        (b"\x00\x01\x02\xff", [STDIN_NAME]),
    ],
)
def test_standard_input_is_a_list_or_an_image(place, content, expected):
    assert names("-", stdin=content) == expected


@pytest.mark.parametrize("form", ["PNG", "JPEG", "PPM", "BMP", "GIF", "WEBP", "TIFF"])
def test_an_image_on_standard_input(place, form):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, format=form)
    found = find_inputs(["b/2.png", "-"], io.BytesIO(file.getvalue()))
    assert found.images[1] == (STDIN_NAME, file.getvalue())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["*.webp"], "expected a pattern of image files, found no match"),
        (["empty"], "empty: expected images in this folder, found none"),
        (["-", "-"], "expected standard input once"),
        (["-"], "expected an image or a list of files on standard input, found nothing"),
        ([], "expected images, found none"),
    ],
)
def test_words_that_name_nothing(place, words, message):
    os.mkdir("empty")
    for stdin in (io.BytesIO(), None):  # a job need not have a standard input
        with pytest.raises(UserError, match=message):
            find_inputs(words, stdin)


def test_a_list_that_names_only_itself(place):
    with pytest.raises(UserError, match="expected images, found none"):
        find_inputs(["-"], io.BytesIO(b"-\n"))


def test_an_empty_file_in_a_folder_is_an_image_with_an_error(place):
    (place / "b/0.png").write_bytes(b"")
    assert names("b") == ["b/0.png", "b/1.jpg", "b/2.png"]
