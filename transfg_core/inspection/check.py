"""The command `transfg data check`: read every image, find what is wrong, write a report."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from transfg_core.config.sections import Config
from transfg_core.data.walk import printable
from transfg_core.errors import UserError
from transfg_core.inspection.balance import balance_of
from transfg_core.inspection.duplicates import MOST_BITS, Group, exact_groups, near_groups
from transfg_core.inspection.facts import require_image_hash
from transfg_core.inspection.notices import (
    LEVELS,
    Duplicates,
    Notice,
    counts_of,
    notices_of,
    official_counts,
)
from transfg_core.inspection.page import require_templates, write_page
from transfg_core.inspection.pictures import contact_sheets
from transfg_core.inspection.scan import Scan, scan
from transfg_core.inspection.subject import load_subject, read_subject
from transfg_core.inspection.tables import (
    SHARES,
    balance_text,
    broken_table,
    class_table,
    count_table,
    duplicate_table,
    notice_table,
    quantiles_of,
    size_table,
)

FORMAT = "data-check/1"
MOST_NAMES = 10_000  # images that one list of check.json names


def check_data(
    source: Path,
    overrides: Iterable[str] = (),
    out: Path | None = None,
    near: int | None = None,
    strict: bool = False,
    few: int = 10,
    images: int = 4,
) -> tuple[str, bool]:
    """Check a data set; return the text of the result, and whether it has problems.

    Args:
        source: a configuration, or the folder of a data set (`load_subject`).
        overrides: key=value.
        out: folder of check.html, check.md, check.json and the contact sheets; None writes none.
        near: also look for images whose perceptual hashes differ in at most this many bits.
        strict: warnings count as problems.
        few: classes with fewer training images get a warning.
        images: images of each class on the contact sheet, 0 for none.

    Raises:
        UserError: the configuration is wrong, or no run could read the data set.
        RunFailed: a worker process died, or the report cannot be written.
    """
    if near is not None:
        if not 0 <= near <= MOST_BITS:
            raise UserError(f"--near {near}: expected 0 to {MOST_BITS} bits of 64")
        require_image_hash()
    config, assumed = load_subject(source, overrides)
    if out is not None:
        require_templates()
        refuse_inside(out, Path(config.data.root))
    found = scan(read_subject(config), config.data, near is not None)
    duplicates = Duplicates(
        exact_groups(found), () if near is None else near_groups(found, near), near
    )
    notices = notices_of(found, duplicates, few)
    bad = any(notice.level in LEVELS[: 1 + strict] for notice in notices)
    verdict = verdict_of(notices, bad)
    if out is not None:
        sheets = contact_sheets(found, duplicates, notices, config.run.seed, images)
        tables = [
            count_table(found),
            notice_table(notices),
            broken_table(found),
            duplicate_table(found, duplicates),
            size_table(found),
            class_table(found),
        ]
        title = f"Data set: {config.data.name} in {config.data.root}"
        lines = [line for line in (verdict, assumed) if line]
        record = check_record(config, found, duplicates, notices, bad)
        tables = [table for table in tables if table.rows]
        write_page(out, "check", title, bad, lines, tables, sheets, record)
    return check_text(config, found, notices, verdict, assumed), bad


def refuse_inside(out: Path, root: Path) -> None:
    """Refuse to write pictures into the data set, where the next run would read them.

    Raises:
        UserError: `out` lies in the folder of the data set.
    """
    if out.resolve().is_relative_to(root.resolve()):
        raise UserError(
            f"--out {out}: expected a folder outside the data set, found one inside data.root "
            f"{root}; choose another"
        )


def verdict_of(notices: Sequence[Notice], bad: bool) -> str:
    """`Problems found: 1 problem, 2 warnings, 3 notes`."""
    counts = {level: sum(n.level == level for n in notices) for level in LEVELS}
    text = ", ".join(f"{count} {level}{'s' * (count != 1)}" for level, count in counts.items())
    return f"{'Problems found' if bad else 'No problem found'}: {text}"


def check_text(
    config: Config, found: Scan, notices: Sequence[Notice], verdict: str, assumed: str
) -> str:
    """The result for a terminal."""
    counts, official = counts_of(found), official_counts(found)
    lines = [
        f"{config.data.name} in {printable(config.data.root)}: {counts['classes']} classes, "
        f"{counts['train']} training and {counts['test']} test images"
    ]
    if assumed:
        lines.append(assumed)
    if official:
        lines.append(
            f"official: {official['classes']} classes, {official['train']} training and "
            f"{official['test']} test images"
        )
    sizes = quantiles_of(found.sizes[found.readable])
    middle = SHARES.index(50)
    for name, values in sizes.items():
        form = ".2f" if name == "aspect ratio" else ".0f"
        lines.append(
            f"{name}: smallest {values[0]:{form}}, median {values[middle]:{form}}, "
            f"largest {values[-1]:{form}}"
        )
    lines.append(balance_text(balance_of(found.dataset, found.labels[found.rows("train")])))
    for notice in notices:
        lines.append(
            f"{notice.level}: {notice.kind}: {printable(notice.text)}{_examples(found, notice)}"
        )
    return "\n".join([*lines, verdict])


def _examples(found: Scan, notice: Notice) -> str:
    """One image of a notice, for the terminal."""
    return f" (such as {printable(found.ids[notice.rows[0]])})" if notice.rows else ""


def check_record(
    config: Config, found: Scan, duplicates: Duplicates, notices: Sequence[Notice], bad: bool
) -> dict[str, object]:
    """check.json."""
    balances = {
        split: balance_of(found.dataset, found.labels[found.rows(split)]).counts.tolist()
        for split in found.splits
    }
    broken = [
        {**_named(found, row), "reason": found.reason_of(row)}
        for rows in found.broken_by_reason().values()
        for row in rows[:MOST_NAMES].tolist()
    ]
    return {
        "format": FORMAT,
        "problems": bad,
        "data": config.data.model_dump(mode="json"),
        "seed": config.run.seed,
        "counts": counts_of(found),
        "official": official_counts(found),
        "notices": [
            {
                "level": notice.level,
                "kind": notice.kind,
                "text": notice.text,
                "count": len(notice.rows),
                "images": [found.ids[row] for row in notice.rows[:MOST_NAMES]],
            }
            for notice in notices
        ],
        "left_out": [
            {"reason": entry.reason, "count": entry.count, "example": entry.example}
            for entry in found.dataset.left_out
        ],
        "broken": broken[:MOST_NAMES],
        "duplicates": {
            "bits": duplicates.bits,
            "equal": _group_record(found, duplicates.exact),
            "near": _group_record(found, duplicates.near),
        },
        "sizes": {
            "percent": list(SHARES),
            **quantiles_of(found.sizes[found.readable]),
        },
        "classes": [
            {"name": name, **{split: counts[label] for split, counts in balances.items()}}
            for label, name in enumerate(found.dataset.classes)
        ],
    }


def _group_record(found: Scan, groups: Sequence[Group]) -> list[list[dict[str, Any]]]:
    return [
        [
            {**_named(found, row), "bits": bits}
            for row, bits in zip(group.rows, group.distances, strict=True)
        ]
        for group in groups[:MOST_NAMES]
    ]


def _named(found: Scan, row: int) -> dict[str, Any]:
    return {
        "image": found.ids[row],
        "split": found.split_of(row),
        "class": found.class_of(row),
    }
