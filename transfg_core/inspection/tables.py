"""The tables of a check: counts, sizes, classes, broken images, duplicates."""

from collections.abc import Mapping, Sequence

import numpy as np

from transfg_core.data.walk import printable
from transfg_core.inspection.balance import Balance, balance_of
from transfg_core.inspection.duplicates import Group
from transfg_core.inspection.notices import Duplicates, Notice, counts_of, official_counts
from transfg_core.inspection.scan import Scan
from transfg_core.report.numbers import NONE
from transfg_core.report.tables import Table

MOST_ROWS = 100  # rows of a table on the page; check.json has more
MOST_CLASSES = 20
SHARES = (0, 1, 5, 25, 50, 75, 95, 99, 100)  # per cent


def count_table(scan: Scan) -> Table:
    """Classes and images here, beside the official numbers and what can be read."""
    here, official = counts_of(scan), official_counts(scan)
    readable = {split: int(scan.readable[scan.rows(split)].sum()) for split in scan.splits}
    training = readable.get("train", 0) + readable.get("validation", 0)
    rows = [["here", *(str(here[key]) for key in ("classes", "train", "test"))]]
    if len(scan.rows("validation")):
        held_out = len(scan.rows("validation"))
        rows.append(["of them held out for validation", NONE, str(held_out), NONE])
    if official:
        rows.append(["official", *(str(official[key]) for key in ("classes", "train", "test"))])
    if len(scan.rows("train")):
        rows.append(["that can be read", NONE, str(training), str(readable.get("test", 0))])
    return Table("Counts", "", ["", "classes", "training images", "test images"], rows, (1, 2, 3))


def notice_table(notices: Sequence[Notice]) -> Table:
    """All findings."""
    note = (
        "A problem stops training, or makes an accuracy mean less than it seems. A warning needs a "
        "look; --strict counts it as a problem. A note needs no action."
    )
    rows = [[notice.level, notice.kind, printable(notice.text)] for notice in notices]
    return Table("Findings", note, ["level", "kind", "what"], rows, ())


def size_table(scan: Scan) -> Table:
    """Percentiles of the sides and of the aspect ratio, over the images that can be read."""
    rows = []
    quantiles = quantiles_of(scan.sizes[scan.readable])
    for name, values in quantiles.items():
        form = ".2f" if name == "aspect ratio" else ".0f"
        rows.append([name, *(f"{value:{form}}" for value in values)])
    note = (
        "Pixels of the images as training reads them, before resizing, and the share of images "
        "with at most this value. The aspect ratio is the longer side over the shorter one."
    )
    header = ["", "smallest", *(f"{share} %" for share in SHARES[1:-1]), "largest"]
    return Table("Sizes", note, header, rows, range(1, len(SHARES) + 1))


def quantiles_of(sizes: np.ndarray[tuple[int, ...], np.dtype[np.int32]]) -> dict[str, list[float]]:
    """Of sizes (n, 2), height and width: percentiles SHARES by name; empty without images."""
    if not len(sizes):
        return {}
    shorter, longer = sizes.min(axis=1), sizes.max(axis=1)
    named = {"shorter side": shorter, "longer side": longer, "aspect ratio": longer / shorter}
    return {
        name: np.percentile(values, SHARES, method="nearest").tolist()
        for name, values in named.items()
    }


def class_table(scan: Scan) -> Table:
    """The smallest and the largest classes of the training split."""
    train = balance_of(scan.dataset, scan.labels[scan.rows("train")])
    test = balance_of(scan.dataset, scan.labels[scan.rows("test")])
    order = np.argsort(train.counts, kind="stable").tolist()
    half = MOST_CLASSES // 2
    shown = order if len(order) <= MOST_CLASSES else [*order[:half], *order[-half:]]
    rows = [[printable(train.classes[k]), str(train.counts[k]), str(test.counts[k])] for k in shown]
    left = len(order) - len(shown)
    note = balance_text(train) + (
        f" The table leaves out {left} classes between these, which are in check.json."
        if left
        else ""
    )
    return Table("Classes", note, ["class", "training images", "test images"], rows, (1, 2))


def balance_text(balance: Balance) -> str:
    """A sentence about the smallest, the median and the largest class."""
    low, high = balance.fewest, balance.most
    if balance.counts[low] == balance.counts[high]:
        return f"Every class has {balance.counts[low]} training images."
    return (
        f"Training images of a class: fewest {balance.counts[low]} "
        f"({printable(balance.classes[low])}), median {balance.median:g}, most "
        f"{balance.counts[high]} ({printable(balance.classes[high])}); the largest class has "
        f"{balance.ratio:.3g} times the images of the smallest."
    )


def broken_table(scan: Scan) -> Table:
    """Images that cannot be read, with the reason."""
    rows = [
        [scan.ids[row], scan.split_of(row), scan.class_of(row), scan.reason_of(row)]
        for places in scan.broken_by_reason().values()
        for row in places[:MOST_ROWS].tolist()
    ]
    total = int((~scan.readable).sum())
    note = "" if total <= MOST_ROWS else f"The first {MOST_ROWS} of {total}; check.json has more."
    rows = [[printable(text) for text in row] for row in rows[:MOST_ROWS]]
    return Table(
        "Images that cannot be read", note, ["image", "split", "class", "reason"], rows, ()
    )


def duplicate_table(scan: Scan, duplicates: Duplicates) -> Table:
    """The images of each set of equal or near ones."""
    rows = []
    kinds: Mapping[str, Sequence[Group]] = {"equal": duplicates.exact, "near": duplicates.near}
    total = sum(len(groups) for groups in kinds.values())
    number = 0
    for kind, groups in kinds.items():
        for group in groups:
            number += 1
            for row, bits in zip(group.rows, group.distances, strict=True):
                rows.append(
                    [f"{number} {kind}", str(bits), scan.split_of(row), scan.class_of(row),
                     scan.ids[row]]
                )  # fmt: skip
    near = (
        "Near duplicates were not looked for (--near BITS)."
        if duplicates.bits is None
        else f"Near: perceptual hashes (pHash, 64 bits) at most {duplicates.bits} bits apart, and "
        "16 x 16 grey pixels with a correlation above 0.95; images of one colour are left out."
    )
    note = f"{total} sets. Equal: same size and same RGB values as training reads them. {near}"
    if len(rows) > MOST_ROWS:
        note += f" The first {MOST_ROWS} of {len(rows)} images; check.json has more."
    rows = [[printable(text) for text in row] for row in rows[:MOST_ROWS]]
    header = ["set", "bits from the first", "split", "class", "image"]
    return Table("Duplicates", note, header, rows, (1,))
