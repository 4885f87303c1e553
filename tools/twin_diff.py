"""Translate the PyTorch twin into Jittor and print what differs without a stated reason.

    python tools/twin_diff.py        # exit code 0: every difference is explained; 1: some is not

Both twins must have the same files, but for the folders in `WITHOUT_TWIN`. In them they must have
the same definitions in the same order, with the same signatures and docstrings. Other lines must
be equal after the translation, or carry their reason in either twin, in one of these ways:

    line              # jittor: reason          stands where the twin has one other line
    line              # jittor only: reason     stands where the twin has nothing
    def f(...):       # native: reason          what this holds is the framework's own; its name,
                                                signature and docstring still count

In the PyTorch twin it is `# torch:` and `# torch only:`. On a line of its own such a comment is
for the statement below. `# jittor block:` is for all lines up to an empty one, or up to one that is
indented less, in place of as many lines in the twin; `# jittor block for 1 line:` in place of one.

Constants can be native too, and a native definition may stand in one twin alone; the comments
directly above belong to it. Module-level imports are not compared (the layering test looks at
them), nor are blank lines. A reason where nothing differs is an error as well. It is one script
without other files, and so longer than most files here.
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
WITHOUT_TWIN = ("ops", "setup", "foreign")

REASON = re.compile(r"(?:^|\s+)# (?:jittor|torch)( only)?( block(?: for (\d+) lines?)?)?: \S.*$")
NATIVE = re.compile(r"\s+# native: \S.*$")

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
Constant = ast.Assign | ast.AnnAssign


@dataclass
class Translation:
    """The rules, and which of them have translated something."""

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
    """Why a line differs: the line of the comment, 0 if there is none.

    `only`: nothing stands for it in the twin. `block`: it is for several lines, in place of
    `twin_lines` in the twin, or of as many.
    """

    line: int
    only: bool = False
    block: bool = False
    twin_lines: int | None = None


NO_REASON = Reason(0)


@dataclass(frozen=True)
class Line:
    """One line that counts, without its reason."""

    number: int
    text: str
    reason: "Reason"


@dataclass(frozen=True)
class Part:
    """A definition or constant: signature is nothing for constants and plain classes."""

    name: str
    signature: str
    docstring: str | None
    native: bool
    first: int  # line of its first comment or decorator
    last: int
    node: ast.stmt


class Source:
    """One twin's file, taken apart."""

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
        """The first of the comment lines that end directly above a line, or the line."""
        while line > 1 and self.rows[line - 2].lstrip().startswith("#"):
            line -= 1
        return line

    def lines(self, skipped: set[str]) -> list[Line]:
        """The lines that must be equal or explained; of native parts, none but the signature.

        `skipped` names the native parts, of either twin.
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
        """The last line of a block: before an empty line, or one that is indented less."""
        indent = indent_of(self.rows[first - 1])
        last = first
        while last < len(self.rows):
            row = self.rows[last]
            if not row.strip() or indent_of(row) < indent:
                break
            last += 1
        return last

    def reasons(self) -> dict[int, Reason]:
        """Line -> its reason."""
        found, statements = {}, {}
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
            found |= dict.fromkeys(range(first, last + 1), given)
        return found


def header(node: Definition) -> int:
    """The last line of a definition's signature."""
    return max(node.lineno, node.body[0].lineno - 1)


def indent_of(row: str) -> int:
    """How many spaces a line starts with."""
    return len(row) - len(row.lstrip())


def is_comment(row: str) -> bool:
    """Whether a line is nothing but a comment."""
    return row.lstrip().startswith("#")


def compare(name: str, torch_text: str, jittor_text: str, translate: Translation) -> list[str]:
    """Unexplained differences between two twin files, one message each."""
    try:
        left, right = Source(translate(torch_text)), Source(jittor_text)
    except SyntaxError as error:
        return [f"{name}: a twin, or its translation, is not Python: {error}"]
    found = compare_parts(left, right)
    if not found:
        found = compare_lines(left, right)
    return [f"{name}: {message}" for message in found]


def compare_parts(left: Source, right: Source) -> list[str]:
    """Definitions and constants: present, in order, with the same signature and docstring."""
    found = []
    if left.docstring != right.docstring:
        found.append(f"docstring of the file: {apart(left.docstring, right.docstring)}")
    sides = [{part.name: part for part in source.parts} for source in (left, right)]
    for (here, there), twin in zip((sides, sides[::-1]), TWINS, strict=True):
        for part in here.values():
            if part.name not in there and not part.native:
                found.append(
                    f"{part.name}: only in {twin}, line {part.last}, and not marked native"
                )
    common = [
        [name for name in side if name in sides[0].keys() & sides[1].keys()] for side in sides
    ]
    if common[0] != common[1]:
        pair = next(pair for pair in zip(*common, strict=True) if pair[0] != pair[1])
        found.append(f"order: {pair[0]} in {TWINS[0]} where {pair[1]} stands in {TWINS[1]}")
    for name in common[0]:
        a, b = sides[0][name], sides[1][name]
        if a.signature != b.signature:
            found.append(f"{name}: signature {a.signature}, in {TWINS[1]} {b.signature}")
        if a.docstring != b.docstring:
            found.append(f"{name}: docstring: {apart(a.docstring, b.docstring)}")
    return found


def apart(left: str | None, right: str | None) -> str:
    """The first line in which two texts differ."""
    pairs = zip((left or "").splitlines() + [""], (right or "").splitlines() + [""], strict=False)
    return next((f"{a!r}, in {TWINS[1]} {b!r}" for a, b in pairs if a != b), "length")


def compare_lines(left: Source, right: Source) -> list[str]:
    """Lines that differ and are not explained, then reasons where nothing differs."""
    skipped = {part.name for source in (left, right) for part in source.parts if part.native}
    a, b = left.lines(skipped), right.lines(skipped)
    matcher = difflib.SequenceMatcher(
        None, [line.text for line in a], [line.text for line in b], autojunk=False
    )
    found, needed = [], set()
    for tag, a1, a2, b1, b2 in matcher.get_opcodes():
        if tag == "equal":
            continue
        needed |= {("a", line.reason.line) for line in a[a1:a2]}
        needed |= {("b", line.reason.line) for line in b[b1:b2]}
        found += unexplained(a[a1:a2], b[b1:b2])
    for lines, side, twin in ((a, "a", TWINS[0]), (b, "b", TWINS[1])):
        given = {line.reason.line for line in lines if line.reason.line}
        for number in sorted(given - {reason for which, reason in needed if which == side}):
            found.append(f"line {number} of {twin} gives a reason, but nothing differs there")
    return found + idle_marks(left, right)


def unexplained(a: list[Line], b: list[Line]) -> list[str]:
    """Lines without a reason in two stretches that differ, unless each stands for one with it.

    Where both twins give reasons, no line may be without one.
    """
    speaking = [explained(lines) for lines in (a, b)]
    bare = [[line for line in lines if not line.reason.line] for lines in (a, b)]
    wanted = [0, 0] if all(speaking) else speaking[::-1]
    if [len(lines) for lines in bare] == wanted:
        return []
    rows = [
        f"{twin} line {line.number}: {line.text.strip()}"
        for twin, lines in zip(TWINS, bare, strict=True)
        for line in lines
    ]
    return ["; ".join(rows) or f"{TWINS[1]} line {b[0].number if b else 0}: reasons without a line"]


def explained(lines: list[Line]) -> int:
    """How many lines of the twin the reasons of these lines stand for."""
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
    """Native marks on what is the same in both twins."""

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
    """Unexplained differences between the twins, and rules that are not needed."""
    translate = load_translation(root / TRANSLATION.relative_to(ROOT))
    names = [twin_files(root / twin) for twin in TWINS]
    found = []
    for twin, here, there in zip(TWINS, names, names[::-1], strict=True):
        found += [f"{name}: only in {twin}" for name in sorted(here - there)]
    for name in sorted(names[0] & names[1]):
        texts = [(root / twin / name).read_text(encoding="utf-8") for twin in TWINS]
        found += compare(name, *texts, translate)
    for number, (pattern, _) in enumerate(translate.rules):
        if number not in translate.used:
            found.append(f"translation.yaml: the rule {pattern.pattern!r} translates nothing")
    return found


def main() -> int:
    """Print the differences; tell in one line if there are none."""
    found = compare_trees()
    print("\n".join(found) or "the twins differ nowhere without a reason")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
