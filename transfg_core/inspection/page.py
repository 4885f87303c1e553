"""A page about a data set as files: NAME.html (one file with all pictures), NAME.md, NAME.json."""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from transfg_core.checkpoints.file import replace_file
from transfg_core.errors import RunFailed
from transfg_core.inspection.pictures import Sheet
from transfg_core.report.output import render
from transfg_core.report.plots import load_optional
from transfg_core.report.tables import Table
from transfg_core.run.metrics_log import clean

TEMPLATES = Path(__file__).parent / "templates"
SHEET_FILE = re.compile(r"(broken|duplicates|unusual|smallest|classes)-\d+\.jpg")


def require_templates() -> None:
    """Check that pages can be written, before the images are read.

    Raises:
        UserError: Jinja2 is not installed.
    """
    load_optional("jinja2")


def write_page(
    out: Path,
    name: str,
    title: str,
    bad: bool,
    lines: Sequence[str],
    tables: Sequence[Table],
    sheets: Sequence[Sheet],
    record: Mapping[str, Any],
) -> None:
    """Write the files of a report; those of an older one in the same folder are replaced.

    Raises:
        RunFailed: they cannot be written.
    """
    pictures = {
        f"{sheet.name}-{number:02}.jpg": data
        for sheet in sheets
        for number, data in enumerate(sheet.pages, 1)
    }
    page = {
        "title": title,
        "bad": bad,
        "lines": lines,
        "tables": tables,
        "sheets": [
            (sheet, [(f"{sheet.name}-{k:02}.jpg", base64.b64encode(data).decode())
                     for k, data in enumerate(sheet.pages, 1)])
            for sheet in sheets
        ],
    }  # fmt: skip
    files = {
        **pictures,
        f"{name}.json": (json.dumps(clean(record), indent=1) + "\n").encode(),
        f"{name}.md": render("page.md.j2", page, TEMPLATES),
        f"{name}.html": render("page.html.j2", page, TEMPLATES),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for file, data in files.items():
            replace_file(out / file, data)
        for old in out.iterdir():
            if SHEET_FILE.fullmatch(old.name) and old.name not in pictures:
                with suppress(FileNotFoundError):
                    old.unlink()
    except OSError as error:
        raise RunFailed(f"{out}: cannot write the report: {error.strerror}") from error
