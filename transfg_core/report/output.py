"""The files of a report: templates filled, tables as CSV and LaTeX, old files replaced."""

import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transfg_core.checkpoints.file import replace_file
from transfg_core.errors import RunFailed
from transfg_core.report.latex import CODE, latex
from transfg_core.report.plots import load_optional
from transfg_core.report.tables import Table
from transfg_core.run.metrics_log import csv_text

TEMPLATES = Path(__file__).parent / "templates"
# The tables that have a .tex file: title -> name of the file and label.
TEX = {
    "Results": "results",
    "Beside published numbers": "published",
    "Method and split": "method_and_split",
    "Methods": "methods",
    "Contrastive loss": "contrastive",
    "Margin of the contrastive loss": "margin",
    "Fusion of attention maps": "fusion",
    "Parity of accuracies": "parity",
    "Speed and memory": "speed",
    "Averages over classes": "class_averages",
    "Weakest classes": "weakest_classes",
    "Confused classes": "confused_classes",
}
CSV = ("runs", "configurations", "per_class", "confusions")
LINE = 118  # characters
SIGN = re.compile(r"^(\d*)([-+#>)]|\.(?= )|\*(?!\*))")
PARTS, CONFUSIONS = "parts.png", "confusions.jpg"
OURS = (
    PARTS,
    CONFUSIONS,
    *(f"tables/{name}.tex" for name in TEX.values()),
    *(f"tables/{name}.csv" for name in CSV),
)

Files = dict[str, bytes]


def tex_files(tables: Sequence[Table]) -> Files:
    """A .tex file for each table."""
    names = {table.title: TEX[table.title] for table in tables}
    return {
        f"tables/{names[table.title]}.tex": encoded(latex(table, names[table.title]))
        for table in tables
    }


def csv_file(name: str, rows: Sequence[Sequence[object]]) -> Files:
    """A CSV file, the header first; nothing without other rows."""
    assert name in CSV
    return {f"tables/{name}.csv": encoded(csv_text(rows))} if len(rows) > 1 else {}


def encoded(text: str) -> bytes:
    """UTF-8; a folder's name may hold bytes that are none, which Python keeps as half surrogates"""
    return text.encode("utf-8", "backslashreplace")


def render(template: str, page: Mapping[str, Any], folder: Path = TEMPLATES) -> bytes:
    """A template of a folder, filled with the page."""
    jinja2 = load_optional("jinja2")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=template.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    markup, escape = jinja2.utils.markupsafe.Markup, jinja2.utils.markupsafe.escape
    environment.filters["code"] = lambda text: markup(
        CODE.sub(r"<code>\1</code>", str(escape(text)))
    )
    environment.filters["lines"] = markdown_lines
    return encoded(environment.get_template(template).render(page))


def markdown_lines(text: str) -> str:
    """Text in lines of LINE characters, none of which Markdown takes for a list or a heading."""
    lines = textwrap.wrap(
        text.replace("<", "&lt;"), LINE, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(SIGN.sub(r"\1\\\2", line) for line in lines)


def write(out: Path, files: Files) -> None:
    """Write the files, and delete those of an older report that this one does not have.

    Raises:
        RunFailed: they cannot be written.
    """
    try:
        (out / "tables").mkdir(parents=True, exist_ok=True)
        for name in OURS:
            if name not in files:
                (out / name).unlink(missing_ok=True)
        for name, data in files.items():
            replace_file(out / name, data)
    except OSError as error:
        raise RunFailed(f"{out}: cannot write the report: {error.strerror}") from error
