"""What a check found: problems, warnings and notes, each with its images.

problem    training stops at it, or an accuracy on this data set means less than it seems
warning    a person should look at it; `--strict` counts it as a problem
note       a property that needs no action
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from transfg_core.data.datasets.findings import Frames, Turned
from transfg_core.data.datasets.folder import BESIDE
from transfg_core.data.datasets.listed import HELD_OUT_IMAGES
from transfg_core.data.datasets.official import official
from transfg_core.data.datasets.split import NOT_LISTED
from transfg_core.data.walk import (
    CANNOT_BE_READ,
    HIDDEN,
    NO_IMAGE,
    READ_ALREADY,
    printable,
)
from transfg_core.inspection.balance import balance_of
from transfg_core.inspection.duplicates import Group, crosses, disagrees
from transfg_core.inspection.facts import Trait
from transfg_core.inspection.scan import Scan

Level = Literal["problem", "warning", "note"]
LEVELS: tuple[Level, ...] = ("problem", "warning", "note")
ABSENT = "no such file"  # the reason of bad_image.reason_of
MOST_REASONS = 20  # different reasons of unreadable images that have a line each
EXPECTED = {HIDDEN, NO_IMAGE, READ_ALREADY, HELD_OUT_IMAGES, NOT_LISTED, BESIDE}
# trait -> level, kind, what follows "3 images"
TRAITS: tuple[tuple[Trait, Level, str, str], ...] = (
    (Trait.TRANSPARENT, "warning", "transparent",
     "with transparent pixels; training sees the colour that is stored under them"),
    (Trait.FRAMES, "warning", "frames", "with several frames or pages; training sees the first"),
    (Trait.UNIFORM, "warning", "one colour", "of one colour and nothing else"),
    (Trait.GREY, "note", "grey", "stored as grey; training reads it as RGB"),
    (Trait.COLOURLESS, "note", "colourless", "stored as colours, all of them grey"),
    (Trait.PALETTE, "note", "palette", "stored with a palette"),
    (Trait.CMYK, "note", "cmyk", "in CMYK; training uses no colour profile"),
    (Trait.DEEP, "note", "16 bits", "with more than 8 bits a channel; training sees the upper 8"),
    (Trait.SUFFIX, "note", "suffix", "with another format than the suffix says; training reads it"),
)  # fmt: skip


@dataclass(frozen=True)
class Notice:
    """One finding. `rows` are those of the scan that it is about, and may be empty."""

    level: Level
    kind: str
    text: str
    rows: Sequence[int] = ()


@dataclass(frozen=True)
class Duplicates:
    """Groups of equal images, and of near ones within `bits` bits (None: not looked for)."""

    exact: Sequence[Group]
    near: Sequence[Group] = ()
    bits: int | None = None


def notices_of(scan: Scan, duplicates: Duplicates, few: int) -> list[Notice]:
    """All findings, problems first. Classes with fewer than `few` training images are one."""
    found = [
        *_counts(scan),
        *_broken(scan),
        *_left_out(scan),
        *_duplicates(scan, duplicates),
        *_sizes(scan),
        *_classes(scan, few),
        *_traits(scan),
        *_other(scan),
    ]
    return sorted(found, key=lambda notice: LEVELS.index(notice.level))


def _counts(scan: Scan) -> Iterator[Notice]:
    published, here = official_counts(scan), counts_of(scan)
    if published is None or here == published:
        return
    expected, found = (
        f"{c['classes']} classes, {c['train']} training and {c['test']} test images"
        for c in (published, here)
    )
    yield Notice(
        "problem",
        "counts",
        f"the official split has {expected}, here are {found}; the copy is incomplete, or a part "
        "of the data set, and its accuracies do not compare with published ones",
    )


def official_counts(scan: Scan) -> dict[str, int] | None:
    """The published numbers of classes and images; None for a drawn split or another data set."""
    counts, data = official(scan.data), scan.data
    held_out = data.validation is not None and data.split != "random" and data.folds is None
    if counts is None or (scan.dataset.split and not held_out):
        return None
    return {"classes": counts.classes, "train": counts.train, "test": counts.test}


def counts_of(scan: Scan) -> dict[str, int]:
    """Classes, and images of each split; those held out for validation count as training."""
    held_out = len(scan.rows("validation"))
    return {
        "classes": len(scan.dataset.classes),
        "train": len(scan.rows("train")) + held_out,
        "test": len(scan.rows("test")),
    }


def _broken(scan: Scan) -> Iterator[Notice]:
    level: Level = "problem" if scan.data.on_bad_image == "error" else "warning"
    reasons = list(scan.broken_by_reason().items())
    for reason, rows in reasons[:MOST_REASONS]:
        if reason == ABSENT:
            where = ", ".join(f"{len(scan.rows(s))} {s}" for s in scan.splits)
            text = f"in the lists and absent from the disk (of {where} images)"
            yield Notice(level, "absent", f"{images(len(rows))} {text}", rows.tolist())
        else:
            text = f"{images(len(rows))} that cannot be read: {reason}"
            yield Notice(level, "broken", text, rows.tolist())
    rest = [rows for _, rows in reasons[MOST_REASONS:]]
    if rest:
        rows = np.concatenate(rest)
        text = f"{images(len(rows))} that cannot be read for {len(rest)} further reasons"
        yield Notice(level, "broken", text, rows.tolist())


def _left_out(scan: Scan) -> Iterator[Notice]:
    broken: Level = "problem" if scan.data.on_bad_image == "error" else "warning"
    for entry in scan.dataset.left_out:
        level: Level = "note" if entry.reason in EXPECTED else "warning"
        if entry.reason == CANNOT_BE_READ:
            level = broken
        yield Notice(level, "left out", f"not used: {entry}")


def _duplicates(scan: Scan, duplicates: Duplicates) -> Iterator[Notice]:
    for groups, kind, what in (
        (duplicates.exact, "equal", "equal pixels"),
        (duplicates.near, "near", "nearly equal pixels"),
    ):
        worst: Level = "problem" if kind == "equal" else "warning"
        across = [group for group in groups if crosses(scan, group)]
        label = [group for group in groups if disagrees(scan, group)]
        within = [g for g in groups if not crosses(scan, g) and not disagrees(scan, g)]
        if across:
            rows = _rows(across)
            tests = sum(scan.split_of(row) == "test" for row in rows)
            yield Notice(
                worst,
                f"{kind} across splits",
                f"{sets(len(across))} with {what} in more than one split, with "
                f"{images(tests)} of test; they make the accuracy too high: keep each on one side",
                rows,
            )
        if label:
            yield Notice(
                worst,
                f"{kind} with other labels",
                f"{sets(len(label))} with {what} and different labels; correct the labels",
                _rows(label),
            )
        if within:
            extra = sum(len(group.rows) - 1 for group in within)
            yield Notice(
                "warning",
                f"{kind} within a split",
                f"{sets(len(within))} with {what}, in one split and of one class, "
                f"{extra} more than needed",
                _rows(within),
            )


def _rows(groups: Iterable[Group]) -> list[int]:
    return [row for group in groups for row in group.rows]


def _sizes(scan: Scan) -> Iterator[Notice]:
    data, (height, width) = scan.data, scan.data.crop
    small = scan.readable & ((scan.sizes[:, 0] < height) | (scan.sizes[:, 1] < width))
    rows = np.flatnonzero(small).tolist()
    if not rows:
        return
    share = f"{images(len(rows))} ({100 * len(rows) / int(scan.readable.sum()):.3g} %)"
    crop = f"data.crop {list(data.crop)}"
    if data.resize is None and (data.random_resized_crop is None or _in(scan, rows, "test")):
        text = f"{share} smaller than {crop}, and no data.resize enlarges them"
        yield Notice("problem", "smaller than the crop", f"{text}: training stops there", rows)
    else:
        text = f"{share} smaller than {crop}; resizing enlarges them, which adds no detail"
        yield Notice("note", "smaller than the crop", text, rows)


def _in(scan: Scan, rows: Sequence[int], split: str) -> bool:
    return any(scan.split_of(row) == split for row in rows)


def _classes(scan: Scan, few: int) -> Iterator[Notice]:
    balance = balance_of(scan.dataset, scan.labels[scan.rows("train")])
    below = balance.below(few)
    if len(below):
        names = ", ".join(
            f"{printable(balance.classes[k])} ({balance.counts[k]})" for k in below[:3]
        )
        more = f" and {len(below) - 3} more" if len(below) > 3 else ""
        verb = "class has" if len(below) == 1 else "classes have"
        text = f"{len(below)} {verb} fewer than {few} training images: {names}{more}"
        yield Notice("warning", "small classes", text)


def _traits(scan: Scan) -> Iterator[Notice]:
    turned = scan.having(Trait.TURNED).tolist()
    if turned and scan.data.exif == "ignore":
        text = "with an EXIF orientation that is not applied; data.exif=apply applies it"
        yield Notice("warning", "turned", f"{images(len(turned))} {text}", turned)
    elif turned:
        text = "turned as the EXIF orientation says"
        yield Notice("note", "turned", f"{images(len(turned))} {text}", turned)
    for trait, level, kind, text in TRAITS:
        rows = scan.having(trait).tolist()
        if rows:
            yield Notice(level, kind, f"{images(len(rows))} {text}", rows)


def _other(scan: Scan) -> Iterator[Notice]:
    dataset = scan.dataset
    for finding in dataset.findings:
        if finding.kind not in (Turned.kind, Frames.kind):  # the scan has them all
            yield Notice("note", finding.kind, str(finding))
    if dataset.split:
        groups = len({row.group for row in dataset.split.rows.values()})
        text = f"the split is drawn from run.seed: {len(dataset.split.rows)} images in {groups}"
        yield Notice("note", "split", f"{text} groups that stay together")
    if dataset.caution:
        yield Notice("note", "caution", dataset.caution)


def images(count: int) -> str:
    """`1 image`, `2 images`."""
    return f"{count} image{'s' * (count != 1)}"


def sets(count: int) -> str:
    """`1 set of images`, `2 sets of images`."""
    return f"{count} set{'s' * (count != 1)} of images"
