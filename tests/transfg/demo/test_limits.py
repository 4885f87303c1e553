"""What a request may ask for."""

import base64

import pytest

from transfg.demo.examples import read_examples
from transfg.demo.limits import TOO_LARGE, BadRequest, chosen, picture_bytes
from transfg.demo.service import distinct_names
from transfg_core.errors import UserError

EXAMPLES = (b"one", b"two")


def address(content, kind="image/png"):
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("example:1", b"two"),
        (address(b"abc"), b"abc"),
        (address(b"abc", "application/octet-stream"), b"abc"),
        (address(b"abc", "image/svg+xml;charset=utf-8"), b"abc"),
        (address(bytes(1_000_000)), bytes(1_000_000)),
    ],
)
def test_pictures(image, expected):
    assert picture_bytes(image, EXAMPLES, 1) == expected


@pytest.mark.parametrize(
    ("image", "code"),
    [
        (None, "no_picture"),
        ("", "no_picture"),
        (7, "no_picture"),
        (["example:0"], "no_picture"),
        ("example:2", "no_picture"),
        ("example:-1", "no_picture"),
        ("/etc/passwd", "no_picture"),
        ("file:///etc/passwd", "no_picture"),
        ("http://127.0.0.1/a.png", "no_picture"),
        ("data:image/png;base64,", "unreadable"),
        ("data:image/png;base64,%%%", "unreadable"),
        ("data:image/png;base64,YQ", "unreadable"),
        ("data:image/png,YQ==", "no_picture"),
        (TOO_LARGE, "too_many_bytes"),
        (address(bytes(1_000_001)), "too_many_bytes"),
        ("x" * 2_000_000, "too_many_bytes"),
    ],
)
def test_what_is_refused(image, code):
    with pytest.raises(BadRequest) as refused:
        picture_bytes(image, EXAMPLES, 1)
    assert refused.value.code == code


def test_choices_are_known_names_in_their_order():
    known = ("a", "b", "c")
    assert chosen(None, known, "x") == chosen([], known, "x") == ["a"]
    assert chosen(["c", "a"], known, "x") == ["a", "c"]
    assert chosen("b", known, "x") == ["b"]
    for wrong in (["d"], ["a", 1], 5, [["a"]], {"a": 1, "z": 2}):
        with pytest.raises(BadRequest):
            chosen(wrong, known, "x")


def test_names_of_runs_are_short_and_different(tmp_path):
    runs = [tmp_path / "first/trial", tmp_path / "second/trial", tmp_path / "other"]
    assert distinct_names(runs[1:]) == ["trial", "other"]
    assert distinct_names(runs)[0] == "first/trial"
    with pytest.raises(UserError, match="the same place"):
        distinct_names([runs[0], runs[0]])


def test_examples_of_a_folder(tmp_path):
    for name in ("b.png", "a.JPG", "note.txt", ".hidden"):
        (tmp_path / name).write_bytes(name.encode())
    assert read_examples(tmp_path) == [(b"a.JPG", "image/jpeg"), (b"b.png", "image/png")]
    with pytest.raises(UserError, match="cannot read it"):
        read_examples(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="expected pictures"):
        read_examples(tmp_path / "empty")
