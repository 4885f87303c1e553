"""The walk below every reader: what it reads, and what it counts as left out."""

import os
import socket

import pytest
from PIL import Image

from transfg_core.data import walk as module
from transfg_core.data.walk import Tally, shown, walk
from transfg_core.errors import UserError


@pytest.fixture
def root(tmp_path):
    """Two images, in data/a and data/b."""
    for name in ("data/a/1.jpg", "data/b/2.PNG"):
        image_at(tmp_path / name)
    return tmp_path / "data"


def image_at(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3)).save(path, "PNG")
    return path


def names_of(root, *below, skip=False):
    """Names of the images, and reason -> (count, example)."""
    tally = Tally()
    images = walk(root, tally, below or ("",), skip)
    return [image.name for image in images], {
        e.reason: (e.count, e.example) for e in tally.entries()
    }


def test_suffixes_of_browsers_and_phones(root):
    for suffix in ("jfif", "JPE", "gif", "webp", "tif"):
        image_at(root / f"a/more.{suffix}")
    for name in ("a/x.heic", "a/y.HEIF", "b/z.CR2", "b/film.mp4", "b/none", "list.txt"):
        (root / name).write_bytes(b"?")
    names, left_out = names_of(root)
    assert len(names) == 7
    assert left_out == {
        module.HEIC: (2, "a/x.heic"),
        module.RAW: (1, "b/z.CR2"),
        module.NO_IMAGE: (3, left_out[module.NO_IMAGE][1]),
    }


def test_avif_counts_where_pillow_reads_it(root, monkeypatch):
    image_at(root / "a/new.avif")
    monkeypatch.setattr(module, "AVIF_IS_READ", True)
    assert "a/new.avif" in names_of(root)[0]
    monkeypatch.setattr(module, "AVIF_IS_READ", False)
    assert names_of(root) == (["a/1.jpg", "b/2.PNG"], {module.AVIF: (1, "a/new.avif")})


def test_hidden_and_system_folders_are_not_entered(root, monkeypatch):
    for name in (
        ".thumbs/3.jpg", "a/.cache/deep/3.jpg", "@eaDir/3.jpg", "#recycle/3.jpg",
        "__MACOSX/a/._1.jpg",
    ):  # fmt: skip
        image_at(root / name)
    image_at(root / "b/.hidden.jpg")
    scanned = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: scanned.append(path) or scan(path))
    assert names_of(root) == (["a/1.jpg", "b/2.PNG"], {module.HIDDEN: (6, "#recycle")})
    assert sorted(scanned) == [str(root), str(root / "a"), str(root / "b")]


@pytest.mark.parametrize("target", ["..", "../..", "/", ".", "../b", "../a"])
def test_links_to_what_is_read_or_above_are_not_followed(root, target):
    (root / "a/loop").symlink_to(target)
    assert names_of(root) == (["a/1.jpg", "b/2.PNG"], {module.READ_ALREADY: (1, "a/loop")})


def test_a_linked_folder_is_read_once_in_its_real_place(root):
    """The link comes first by name, and yet the images stay with the real folder."""
    (root / "0").symlink_to("b")
    image_at(root.parent / "elsewhere/deep/3.jpg")
    (root / "c").symlink_to("../elsewhere")
    (root / "d").symlink_to("../elsewhere/deep")
    names, left_out = names_of(root)
    assert names == ["a/1.jpg", "b/2.PNG", "c/deep/3.jpg"]
    assert left_out == {module.READ_ALREADY: (2, "0")}


def test_links_to_files_count(root):
    (root / "b/link.jpg").symlink_to("../a/1.jpg")
    assert names_of(root)[0] == ["a/1.jpg", "b/2.PNG", "b/link.jpg"]


def test_dead_links_and_special_files_are_left_out(root, monkeypatch):
    (root / "a/dead.jpg").symlink_to("nowhere")
    (root / "a/self.jpg").symlink_to("self.jpg")
    os.mkfifo(root / "a/pipe.jpg")
    (root / "a/device.png").symlink_to("/dev/null")
    monkeypatch.chdir(root)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("b/socket.png")
        names, left_out = names_of(root)
    assert names == ["a/1.jpg", "b/2.PNG"]
    assert left_out == {module.DEAD_LINK: (2, "a/dead.jpg"), module.SPECIAL: (3, "a/device.png")}


def test_a_folder_named_like_an_image_is_a_folder(root):
    image_at(root / "a/album.jpg/5.jpg")
    assert names_of(root)[0] == ["a/1.jpg", "a/album.jpg/5.jpg", "b/2.PNG"]


def test_a_closed_folder_is_an_error(root, monkeypatch):
    scan = os.scandir

    def refuse(path):  # for root, permission bits close nothing
        if path.endswith("/b"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"data/b: cannot read it: Permission denied; make it"):
        names_of(root)


def test_empty_and_closed_files(root, monkeypatch):
    (root / "a/0.jpg").touch()
    with pytest.raises(UserError, match=r"a/0\.jpg: .*an empty file; .*data.on_bad_image=skip"):
        names_of(root)
    monkeypatch.setattr(os, "access", lambda path, mode: not path.endswith("2.PNG"))
    assert names_of(root, skip=True) == (["a/1.jpg"], {module.CANNOT_BE_READ: (2, "a/0.jpg")})
    (root / "a/0.jpg").unlink()
    with pytest.raises(UserError, match=r"b/2\.PNG: .*no permission"):
        names_of(root)


def test_two_starts(root):
    image_at(root / "c/3.jpg")
    assert names_of(root, "a", "c")[0] == ["a/1.jpg", "c/3.jpg"]
    (root / "d").symlink_to("a")
    with pytest.raises(UserError, match="data/d: .*a link to a folder that is read already"):
        names_of(root, "a", "d")


def test_a_root_may_be_a_link_or_relative(root, monkeypatch):
    (root.parent / "link").symlink_to("data")
    assert names_of(root.parent / "link")[0] == ["a/1.jpg", "b/2.PNG"]
    monkeypatch.chdir(root)
    assert names_of(module.Path("."))[0] == ["a/1.jpg", "b/2.PNG"]
    assert names_of(module.Path("."), "a")[0] == ["a/1.jpg"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ('plain name,\n"1".jpg', 'plain name,\n"1".jpg'),
        ("Bruant e\u0301.jpg", "Bruant \u00e9.jpg"),
        ("\u9ce5.jpg", "\u9ce5.jpg"),
        (os.fsdecode(b"m\xfcwe.png"), "m\\xfcwe.png"),
        ("m\\xfcwe.png", "m\\\\xfcwe.png"),
    ],
)
def test_shown_names_are_utf8_and_differ(root, name, expected):
    path = image_at(root / "a" / name)
    assert shown(name) == expected
    (image,) = (image for image in walk(root, Tally()) if image.path == str(path))
    assert image.name == f"a/{expected}"
    expected.encode()
    with Image.open(image.path) as opened:
        assert opened.size == (4, 3)


def test_deep_folders(root):
    deep = root / "a" / "/".join(["d"] * 300)
    image_at(deep / "3.jpg")
    assert len(names_of(root)[0]) == 3
