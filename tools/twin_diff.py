"""Translate the PyTorch twin into Jittor and print differences without a stated reason.

    python tools/twin_diff.py        # exit code 0: every difference has a reason; 1: some have none

Both twins must have the same files, except in the folders `WITHOUT_TWIN`. Twin files must have the
same definitions in the same order, with the same signatures and docstrings. Other lines must be
equal after the translation, or one of the twins must give a reason, in one of these forms:

    line              # jittor: reason          stands where the twin has one other line
    line              # jittor only: reason     stands where the twin has nothing
    def f(...):       # native: reason          the body belongs to the framework; name, signature
                                                and docstring are still compared

In the PyTorch twin the forms are `# torch:` and `# torch only:`. A comment on its own line is for
the statement below it. `# jittor block:` is for all lines up to an empty line, or up to a line with
less indent; they replace as many lines of the twin. `# jittor block for 1 line:` replaces one line.

Constants can be native as well. A native definition may stand in only one twin; the comments
directly above belong to it. Module-level imports (the layering test checks them) and blank lines
are not compared. A reason where nothing differs is an error as well. The rules are in
translation.yaml.

The file is longer than most: it is one comparison, and nothing else uses a part of it.
"""

import ast
import difflib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parent.parent
TRANSLATION = ROOT / "tools" / "translation.yaml"
TWINS = ("transfg_torch", "transfg_jt")
WITHOUT_TWIN = ("ops", "setup", "peers", "onnx")

REASON = re.compile(r"(?:^|\s+)# (?:jittor|torch)( only)?( block(?: for (\d+) lines?)?)?: \S.*$")
NATIVE = re.compile(r"\s+# native: \S.*$")

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
Constant = ast.Assign | ast.AnnAssign


@dataclass
class Translation:
    """The rules, and the numbers of the rules that have translated something."""

    rules: list[tuple[re.Pattern[str], str]]
    used: set[int] = field(default_factory=set)

    def __call__(self, text: str) -> str:
        for number, (pattern, replacement) in enumerate(self.rules):
            text, count = pattern.subn(replacement, text)
            self.used |= {number} if count else set()
        return text


def load_translation(path: Path = TRANSLATION) -> Translation:
    """The rules in their order."""
    stored: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    rules = [(re.compile(rule["from"], re.MULTILINE), rule["to"]) for rule in stored["rules"]]
    return Translation(rules)


class Reason(NamedTuple):
    """Why a line differs. `line`: the line of the comment, 0 if there is no reason.

    `only`: the twin has no line in its place. `block`: the reason is for several lines; they
    replace `twin_lines` lines of the twin, or as many if None.
    """

    line: int
    only: bool = False
    block: bool = False
    twin_lines: int | None = None


NO_REASON = Reason(0)


@dataclass(frozen=True)
class Line:
    """A line that is compared, without the comment that gives its reason."""

    number: int
    text: str
    reason: "Reason"


@dataclass(frozen=True)
class Part:
    """A definition or constant; the signature is empty for constants and plain classes."""

    name: str
    signature: str
    docstring: str | None
    native: bool
    first: int  # line of its first comment or decorator
    last: int
    node: ast.stmt


class Source:
    """The file of one twin, parsed into its parts."""

    def __init__(self, text: str) -> None:
        self.rows = text.splitlines()
        self.tree = ast.parse(text)
        self.docstring = ast.get_docstring(self.tree)
        self.parts = list(self.find_parts(self.tree, ""))

    def find_parts(self, parent: ast.Module | ast.ClassDef, prefix: str) -> Iterator[Part]:
        """Definitions and constants in order, methods after their class."""
        for node in parent.body:
            if isinstance(node, Definition):
                yield self.definition(node, prefix)
                if isinstance(node, ast.ClassDef) and not self.is_native(node.lineno, header(node)):
                    yield from self.find_parts(node, f"{prefix}{node.name}.")
            elif isinstance(node, Constant) and isinstance(parent, ast.Module):
                last = node.end_lineno or node.lineno
                target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
                native = self.is_native(node.lineno, node.lineno) or self.is_native(last, last)
                first = self.first_comment(node.lineno)
                yield Part(ast.unparse(target), "", None, native, first, last, node)

    def definition(self, node: Definition, prefix: str) -> Part:
        """A function's signature as Python writes it; a class's bases."""
        if isinstance(node, ast.ClassDef):
            signature = ", ".join(map(ast.unparse, node.bases))
        else:
            returns = ast.unparse(node.returns) if node.returns else "nothing stated"
            signature = f"({ast.unparse(node.args)}) -> {returns}"
        signature = " ".join(
            [f"@{ast.unparse(each)}" for each in node.decorator_list] + [signature]
        )
        top = min([node.lineno, *(each.lineno for each in node.decorator_list)])
        native = self.is_native(node.lineno, header(node))
        return Part(
            prefix + node.name,
            signature,
            ast.get_docstring(node),
            native,
            self.first_comment(top) if native else top,
            node.end_lineno or node.lineno,
            node,
        )

    def is_native(self, first: int, last: int) -> bool:
        """Whether one of these lines carries a native mark."""
        return any(NATIVE.search(row) for row in self.rows[first - 1 : last])

    def first_comment(self, line: int) -> int:
        """The first of the comment lines directly above a line; the line itself without any."""
        while line > 1 and self.rows[line - 2].lstrip().startswith("#"):
            line -= 1
        return line

    def lines(self, skipped: set[str]) -> list[Line]:
        """The lines that must be equal or have a reason; parts in `skipped` are left out.

        `skipped` holds the names of the native parts of both twins.
        """
        left_out = set()
        for node in self.tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                left_out |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        for part in self.parts:
            if part.name in skipped:
                left_out |= set(range(part.first, part.last + 1))
        reasons = self.reasons()
        return [
            Line(number, NATIVE.sub("", REASON.sub("", row)), reasons.get(number, NO_REASON))
            for number, row in enumerate(self.rows, 1)
            if row.strip()
            and number not in left_out
            and not (is_comment(row) and REASON.search(row))
        ]

    def block_end(self, first: int) -> int:
        """The last line of a block: before an empty line, or before a line with less indent."""
        indent = indent_of(self.rows[first - 1])
        last = first
        while last < len(self.rows):
            row = self.rows[last]
            if not row.strip() or indent_of(row) < indent:
                break
            last += 1
        return last

    def reasons(self) -> dict[int, Reason]:
        """Number of a line -> its reason."""
        reasons, statements = {}, {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.stmt):
                statements.setdefault(node.lineno, node.end_lineno or node.lineno)
        for number, row in enumerate(self.rows, 1):
            reason = REASON.search(row)
            if not reason:
                continue
            count = int(reason[3]) if reason[3] else None
            given = Reason(number, bool(reason[1]), bool(reason[2]), count)
            first = last = number
            if is_comment(row):
                first = next((line for line in range(number, len(self.rows) + 1)
                              if not is_comment(self.rows[line - 1])), number)  # fmt: skip
                last = self.block_end(first) if given.block else statements.get(first, first)
            reasons |= dict.fromkeys(range(first, last + 1), given)
        return reasons


def header(node: Definition) -> int:
    """The last line of a definition's signature."""
    return max(node.lineno, node.body[0].lineno - 1)


def indent_of(row: str) -> int:
    """How many spaces a line starts with."""
    return len(row) - len(row.lstrip())


def is_comment(row: str) -> bool:
    """Whether a line is only a comment."""
    return row.lstrip().startswith("#")


def compare(name: str, torch_text: str, jittor_text: str, translate: Translation) -> list[str]:
    """Unexplained differences between two twin files, one message each."""
    try:
        left, right = Source(translate(torch_text)), Source(jittor_text)
    except SyntaxError as error:
        return [f"{name}: a twin, or its translation, is not Python code: {error}"]
    messages = compare_parts(left, right) or compare_lines(left, right)
    return [f"{name}: {message}" for message in messages]


def compare_parts(left: Source, right: Source) -> list[str]:
    """Definitions and constants that are missing, out of order, or differ in their heads."""
    messages = []
    if left.docstring != right.docstring:
        messages.append(f"docstring of the file: {apart(left.docstring, right.docstring)}")
    sides = [{part.name: part for part in source.parts} for source in (left, right)]
    for (here, there), twin in zip((sides, sides[::-1]), TWINS, strict=True):
        for part in here.values():
            if part.name not in there and not part.native:
                messages.append(
                    f"{part.name}: only in {twin}, line {part.last}, and not marked native"
                )
    common = [
        [name for name in side if name in sides[0].keys() & sides[1].keys()] for side in sides
    ]
    if common[0] != common[1]:
        pair = next(pair for pair in zip(*common, strict=True) if pair[0] != pair[1])
        messages.append(f"order: {pair[0]} in {TWINS[0]} where {pair[1]} stands in {TWINS[1]}")
    for name in common[0]:
        a, b = sides[0][name], sides[1][name]
        if a.signature != b.signature:
            messages.append(f"{name}: signature {a.signature}, in {TWINS[1]} {b.signature}")
        if a.docstring != b.docstring:
            messages.append(f"{name}: docstring: {apart(a.docstring, b.docstring)}")
    return messages


def apart(left: str | None, right: str | None) -> str:
    """The first line in which two texts differ."""
    pairs = zip((left or "").splitlines() + [""], (right or "").splitlines() + [""], strict=False)
    return next((f"{a!r}, in {TWINS[1]} {b!r}" for a, b in pairs if a != b), "length")


def compare_lines(left: Source, right: Source) -> list[str]:
    """Lines that differ without a reason, then reasons where nothing differs."""
    skipped = {part.name for source in (left, right) for part in source.parts if part.native}
    a, b = left.lines(skipped), right.lines(skipped)
    matcher = difflib.SequenceMatcher(
        None, [line.text for line in a], [line.text for line in b], autojunk=False
    )
    messages, needed = [], set()
    for tag, a1, a2, b1, b2 in matcher.get_opcodes():
        if tag == "equal":
            continue
        needed |= {("a", line.reason.line) for line in a[a1:a2]}
        needed |= {("b", line.reason.line) for line in b[b1:b2]}
        messages += unexplained(a[a1:a2], b[b1:b2])
    for lines, side, twin in ((a, "a", TWINS[0]), (b, "b", TWINS[1])):
        given = {line.reason.line for line in lines if line.reason.line}
        for number in sorted(given - {reason for which, reason in needed if which == side}):
            messages.append(f"line {number} of {twin} gives a reason, but nothing differs there")
    return messages + idle_marks(left, right)


def unexplained(a: list[Line], b: list[Line]) -> list[str]:
    """Lines without a reason in two stretches that differ.

    A line is excused if a reason in the twin stands for it. Where both twins give reasons, every
    line needs one.
    """
    explained_lines = [explained(lines) for lines in (a, b)]
    bare = [[line for line in lines if not line.reason.line] for lines in (a, b)]
    allowed = [0, 0] if all(explained_lines) else explained_lines[::-1]
    if [len(lines) for lines in bare] == allowed:
        return []
    rows = [
        f"{twin} line {line.number}: {line.text.strip()}"
        for twin, lines in zip(TWINS, bare, strict=True)
        for line in lines
    ]
    return ["; ".join(rows) or f"{TWINS[1]} line {b[0].number if b else 0}: reasons without a line"]


def explained(lines: list[Line]) -> int:
    """The number of lines in the twin that the reasons of these lines stand for."""
    counts = {}
    for line in lines:
        reason = line.reason
        if not reason.line or reason.only:
            continue
        counts[reason] = counts.get(reason, 0) + 1
    return sum(
        count if reason.twin_lines is None else reason.twin_lines
        for reason, count in counts.items()
    )


def idle_marks(left: Source, right: Source) -> list[str]:
    """Native marks on parts that are the same in both twins."""

    sides = [{part.name: part for part in source.parts} for source in (left, right)]
    return [
        f"{name}: marked native, but nothing differs"
        for name in sides[0].keys() & sides[1].keys()
        if (sides[0][name].native or sides[1][name].native)
        and ast.dump(sides[0][name].node) == ast.dump(sides[1][name].node)
    ]


def twin_files(package: Path) -> set[str]:
    """The files of a package that must have a twin, relative to it."""
    paths = (path.relative_to(package) for path in package.rglob("*.py"))
    return {path.as_posix() for path in paths if path.parts[0] not in WITHOUT_TWIN}


def compare_trees(root: Path = ROOT) -> list[str]:
    """Unexplained differences between the twins, and rules that translate nothing."""
    translate = load_translation(root / TRANSLATION.relative_to(ROOT))
    names = [twin_files(root / twin) for twin in TWINS]
    messages = []
    for twin, here, there in zip(TWINS, names, names[::-1], strict=True):
        messages += [f"{name}: only in {twin}" for name in sorted(here - there)]
    for name in sorted(names[0] & names[1]):
        texts = [(root / twin / name).read_text(encoding="utf-8") for twin in TWINS]
        messages += compare(name, *texts, translate)
    for number, (pattern, _) in enumerate(translate.rules):
        if number not in translate.used:
            messages.append(f"translation.yaml: the rule {pattern.pattern!r} translates nothing")
    return messages


def main() -> int:
    """Print the differences; print one line if there are none."""
    messages = compare_trees()
    print("\n".join(messages) or "no difference between the twins is without a reason")
    return 1 if messages else 0


if __name__ == "__main__":
    sys.exit(main())
