"""A small folder of class folders with every fault that `transfg data check` looks for."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("鹪鹩", "robin", "wren")  # the first is Chinese for wren
SIZE = (160, 120)  # width, height


def scene(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """A smooth random picture: another seed gives another one."""
    few = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(few).resize(size, Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, path: Path, quality: int = 90, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, "JPEG", quality=quality, **options)


def clean_tree(root: Path, images: int = 3, classes: tuple[str, ...] = CLASSES) -> None:
    """train/ and val/ without any fault."""
    seed = 0
    for split in ("train", "val"):
        for name in classes:
            for number in range(images):
                seed += 1
                jpeg(scene(seed), root / split / name / f"{number}.jpg")


def broken(root: Path) -> None:
    """Files that cannot be read: empty, cut short, no image."""
    folder = root / "train/robin"
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("not an image, but text")
    jpeg(scene(100), folder / "cut.jpg")
    data = (folder / "cut.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(data[: len(data) // 2])
    (folder / "head.png").write_bytes(b"\x89PNG\r\n\x1a\n")


def unusual(root: Path) -> None:
    """Readable images of every kind that has a note."""
    folder = root / "train/wren"
    scene(201).convert("L").save(folder / "grey.png")
    scene(202).convert("L").convert("RGB").save(folder / "colourless.png")
    deep = np.asarray(scene(203).convert("L")).astype(np.uint16) * 257
    Image.fromarray(deep).save(folder / "deep.png")
    jpeg(scene(204).convert("CMYK"), folder / "cmyk.jpg")
    alpha = scene(205).convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(SIZE))
    alpha.save(folder / "transparent.png")
    opaque = scene(206).convert("RGBA")
    opaque.save(folder / "opaque.png")
    palette = scene(207).convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(folder / "palette.png", transparency=3)
    frames = [scene(208 + k).convert("P") for k in range(3)]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:])
    scene(220).save(folder / "suffix.jpg", "PNG")
    scene(221).resize((1, 1)).save(folder / "one_pixel.png")
    Image.new("RGB", SIZE, (90, 120, 60)).save(folder / "flat.png")
    Image.new("RGB", (3000, 40), (9, 9, 9)).save(folder / "long.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    jpeg(scene(222), folder / "turned.jpg", exif=exif)


def duplicates(root: Path) -> None:
    """Equal pixels and nearly equal ones: between splits, classes and in one class."""
    train, test = root / "train", root / "val"
    scene(301).save(train / "robin/twin.png")
    scene(301).save(test / "robin/twin copy.bmp")  # other file, same pixels
    jpeg(scene(302), train / "robin/encoded.jpg", 95)
    jpeg(scene(302), test / "robin/encoded again.jpg", 40)
    jpeg(scene(303, (640, 480)), train / "wren/large.jpg", 95)
    jpeg(scene(303, (640, 480)).resize(SIZE), test / "wren/small.jpg", 95)
    scene(304).save(train / "robin/same.png")
    scene(304).save(train / "wren/same.png")  # another label
    scene(305).save(train / "鹪鹩/a.png")
    scene(305).save(train / "鹪鹩/b.png")


def names(root: Path) -> None:
    """File names and links that a walk meets."""
    folder = root / "train/鹪鹩"
    jpeg(scene(401), Path(os.fsdecode(os.fsencode(folder) + b"/m\xfcller.jpg")))  # Latin-1
    jpeg(scene(402), folder / "line\nbreak <b>|.jpg")
    jpeg(scene(403), folder / "ร้อง.jpg")
    (folder / "loop").symlink_to(root / "train")
    (folder / "gone.jpg").symlink_to(root / "nowhere.jpg")
    (folder / "notes.txt").write_text("no image")
    (folder / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (folder / ".hidden.jpg").write_bytes(b"")


def trouble_tree(root: Path) -> None:
    """Everything at once."""
    clean_tree(root)
    for part in (broken, unusual, duplicates, names):
        part(root)
