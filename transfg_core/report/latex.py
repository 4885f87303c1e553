r"""Tables as LaTeX, for a document with `\usepackage{booktabs}`."""

import re
from collections.abc import Sequence

from transfg_core.report.tables import Table

SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$",
    "#": r"\#", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "\n": " ",
    "±": r"$\pm$", "–": "--", "…": r"\dots{}",
    "[": "{[}", "]": "{]}",  # after \\ a bracket would be a length
}  # fmt: skip
LONG = 40  # characters
CODE = re.compile(r"`([^`]*)`")


def escape(text: str) -> str:
    """Text that LaTeX prints as it is; a minus sign before a number is one in print."""
    escaped = "".join(SPECIAL.get(char, char) for char in text.replace("`", "'"))
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", escaped)


def latex(table: Table, name: str) -> str:
    r"""A `table` environment with the caption from the title and note, and `\label{tab:name}`."""
    alignment = "".join(_column(table, k) for k in range(len(table.header)))
    note = CODE.sub(r"\1", table.note)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(table.title)}. {escape(note)}}}",
        rf"\label{{tab:{name}}}",
        rf"\begin{{tabular}}{{{alignment}}}",
        r"\toprule",
        _row(table.header),
        r"\midrule",
        *map(_row, table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _column(table: Table, k: int) -> str:
    """Numbers to the right; long texts in lines of a fixed width."""
    if k in table.right:
        return "r"
    return "p{5cm}" if any(len(row[k]) > LONG for row in table.rows) else "l"


def _row(texts: Sequence[str]) -> str:
    return " & ".join(map(escape, texts)) + r" \\"
