r"""LaTeX tables: escaped, in columns, and readable by a parser.

No TeX runs here, so that the tests need none: the parser below knows the commands and characters
that these files may use, and refuses all others.
"""

import re

import pytest

from transfg_core.report.latex import escape, latex
from transfg_core.report.tables import Table

COMMANDS = {
    "begin", "end", "centering", "caption", "label", "toprule", "midrule", "bottomrule",
    "textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater", "textbar",
    "pm", "dots",
}  # fmt: skip
TOKENS = re.compile(r"\\([a-zA-Z]+)|\\(.)|([{}&$#%_^~<>|])|([^\\{}&$#%_^~<>|]+)", re.DOTALL)


def parse(text):
    """Cells of the rows of a tabular; asserts that braces, dollars and environments match."""
    depth, dollars, commands = 0, 0, []
    for match in TOKENS.finditer(text):
        command, escaped, special, _ = match.groups()
        if command:
            assert command in COMMANDS, command
            commands.append(command)
        elif escaped:
            assert escaped in "\\{}&%$#_", escaped
        elif special:
            assert special in "{}&$", special
            depth += {"{": 1, "}": -1}.get(special, 0)
            dollars += special == "$"
            assert depth >= 0
    assert depth == 0 and dollars % 2 == 0
    assert commands.count("begin") == commands.count("end") == 2
    body = text.split(r"\toprule")[1].split(r"\bottomrule")[0].replace(r"\midrule", "")
    rows = [row.strip() for row in re.split(r"(?<!\\)\\\\\n", body) if row.strip()]
    return [re.split(r"(?<!\\) & ", row) for row in rows]


def test_a_table():
    table = Table("Results", "Over `n` seeds", ["run", "top-1 %"], [["a_b", "-1.50"]], [1])
    assert latex(table, "results") == "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            r"\caption{Results. Over n seeds}",
            r"\label{tab:results}",
            r"\begin{tabular}{lr}",
            r"\toprule",
            r"run & top-1 \% \\",
            r"\midrule",
            r"a\_b & $-$1.50 \\",
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


NASTY = [
    r"\input{/etc/passwd}", "50 % & more", "$x$ #1 ~^_{}", "a|b <c> \"q\"", "[1ex]", "two\nlines",
    "1 ± 2 – …", "`code`", "\\", "%", "麻雀",
]  # fmt: skip


@pytest.mark.parametrize("text", NASTY)
def test_no_text_is_a_command(text):
    table = Table(text, text, [text, "b"], [[text, "1"], ["1", text]], [1])
    rows = parse(latex(table, "x"))
    assert [len(row) for row in rows] == [2, 2, 2]


def test_long_texts_are_broken():
    table = Table("T", "", ["a", "b"], [["x" * 41, "1"]], [1])
    assert r"\begin{tabular}{p{5cm}r}" in latex(table, "x")


def test_signs():
    assert escape("-0.08 .. +1.67") == "$-$0.08 .. +1.67"
    assert escape("non-overlap top-1") == "non-overlap top-1"
    assert escape("1 ± 2") == r"1 $\pm$ 2"
