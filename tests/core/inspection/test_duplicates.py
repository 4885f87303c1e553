"""Equal and near images: groups and pairs, against a search through all pairs."""

from dataclasses import replace

import numpy as np
import pytest
from trouble import clean_tree, duplicates, jpeg, scene

from transfg_core.config.loading import build_config
from transfg_core.inspection import duplicates as search
from transfg_core.inspection.scan import scan
from transfg_core.inspection.subject import read_subject


def scanned(root, near=False, **data):
    config = build_config({"data": {"name": "folder", "root": str(root), **data}}, "test")
    return scan(read_subject(config), config.data, near)


def names(found, groups):
    return [[found.ids[row] for row in group.rows] for group in groups]


def test_bit_count():
    values = np.random.default_rng(0).integers(0, 2**64, 1000, dtype=np.uint64)
    values[:3] = 0, 2**64 - 1, 2**63
    assert search.bit_count(values).tolist() == [int(value).bit_count() for value in values]


@pytest.mark.parametrize("bits", [0, 1, 4, 7, 10])
@pytest.mark.parametrize("block", [1 << 22, 7])
def test_near_pairs_are_those_of_a_search_through_all_pairs(bits, block, monkeypatch):
    """Hashes in clusters: centres with 0 to 12 flipped bits each. Also in blocks of 7 pairs."""
    monkeypatch.setattr(search, "BLOCK", block)
    rng = np.random.default_rng(bits)
    hashes = []
    for centre in rng.integers(0, 2**64, 12, dtype=np.uint64).tolist():
        for flips in range(13):
            places = rng.choice(64, flips, replace=False)
            hashes.append(centre ^ sum(1 << int(place) for place in places))
    hashes = np.unique(np.array(hashes, np.uint64))
    found = {tuple(pair) for pair in search.near_pairs(hashes, bits).tolist()}
    expected = {
        (left, right)
        for right in range(len(hashes))
        for left in range(right)
        if (int(hashes[left]) ^ int(hashes[right])).bit_count() <= bits
    }
    assert found == expected
    assert bits == 0 or len(expected) > 10
    assert bits < 4 or len(expected) > 60


def test_equal_pixels_in_other_files_are_one_group(tmp_path):
    clean_tree(tmp_path)
    duplicates(tmp_path)
    found = scanned(tmp_path)
    groups = search.exact_groups(found)
    assert names(found, groups) == [
        ["train/robin/same.png", "train/wren/same.png"],
        ["train/robin/twin.png", "val/robin/twin copy.bmp"],
        ["train/鹪鹩/a.png", "train/鹪鹩/b.png"],
    ]
    assert [search.crosses(found, group) for group in groups] == [False, True, False]
    assert [search.disagrees(found, group) for group in groups] == [True, False, False]


def test_equal_bytes_of_another_shape_are_another_image(tmp_path):
    """12 x 10 and 10 x 12 pixels of one colour have the same bytes."""
    clean_tree(tmp_path)
    from PIL import Image

    Image.new("RGB", (12, 10), (1, 2, 3)).save(tmp_path / "train/wren/wide.png")
    Image.new("RGB", (10, 12), (1, 2, 3)).save(tmp_path / "val/wren/high.png")
    assert search.exact_groups(scanned(tmp_path)) == []


def test_digests_that_end_in_zero_bytes_stay_different():
    """NumPy's text type drops zero bytes at the end; hashes must not."""
    keys = np.array([b"a" * 15 + b"\0", b"a" * 15 + b"\1", b"a" * 15 + b"\0"], "V16")
    assert [group.tolist() for group in search._groups_of_equal(keys)] == [[0, 2]]


def test_near_duplicates(tmp_path):
    """Another quality and another size are found; equal pixels and other scenes are left out."""
    pytest.importorskip("imagehash", reason="ImageHash (extra `near`) is not installed")
    clean_tree(tmp_path)
    duplicates(tmp_path)
    found = scanned(tmp_path, near=True)
    groups = search.near_groups(found, 4)
    assert names(found, groups) == [
        ["train/robin/encoded.jpg", "val/robin/encoded again.jpg"],
        ["train/wren/large.jpg", "val/wren/small.jpg"],
    ]
    assert all(group.distances[0] == 0 and max(group.distances) <= 4 for group in groups)


def test_equal_hashes_of_unlike_images_are_no_near_duplicates(tmp_path):
    pytest.importorskip("imagehash", reason="ImageHash (extra `near`) is not installed")
    clean_tree(tmp_path)
    jpeg(scene(1), tmp_path / "val/wren/again.jpg", 50)  # the first training image
    found = scanned(tmp_path, near=True)
    found = replace(found, phashes=np.zeros_like(found.phashes))
    expected = [["train/鹪鹩/0.jpg", "val/wren/again.jpg"]]
    assert names(found, search.near_groups(found, 0)) == expected


def test_many_images_with_one_hash_are_compared_with_the_first(monkeypatch):
    hashes = np.array([7, 9, 7, 9, 7, 7 + 2**40], np.uint64)
    pairs = {tuple(pair) for pair in search._candidates(hashes, 1).tolist()}
    assert pairs == {(0, 2), (0, 4), (2, 4), (1, 3), (0, 5)}
    monkeypatch.setattr(search, "CROWD", 2)
    pairs = {tuple(pair) for pair in search._candidates(hashes, 1).tolist()}
    assert pairs == {(0, 2), (0, 4), (1, 3), (0, 5)}


def test_images_of_one_colour_are_no_near_duplicates(tmp_path):
    pytest.importorskip("imagehash", reason="ImageHash (extra `near`) is not installed")
    clean_tree(tmp_path)
    from PIL import Image

    for split, colour in (("train", (9, 9, 9)), ("val", (200, 30, 30))):
        Image.new("RGB", (40, 40), colour).save(tmp_path / split / "wren/flat.png")
    assert search.near_groups(scanned(tmp_path, near=True), 4) == []


def test_perceptual_hash_is_that_of_the_package():
    imagehash = pytest.importorskip("imagehash", reason="ImageHash (extra `near`) is not installed")
    from transfg_core.inspection.facts import perceptual_hash

    image = scene(5)
    assert f"{perceptual_hash(image):016x}" == str(imagehash.phash(image))


def test_workers_find_the_same_as_threads(tmp_path):
    clean_tree(tmp_path, images=1, classes=("a", "b"))
    duplicates_of = tmp_path / "val/a/0.jpg"
    jpeg(scene(1), duplicates_of)
    threads, workers = (scanned(tmp_path, workers=count) for count in (0, 2))
    assert (threads.digests == workers.digests).all() and (threads.sizes == workers.sizes).all()
    assert len(search.exact_groups(workers)) == 1
