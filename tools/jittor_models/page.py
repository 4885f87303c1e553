"""The page of the audit: docs/results/jittor_models.md."""

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any, NamedTuple

from parity.diagnose.upstream import Entry
from tools.jittor_models.zoo import BY_NAME

# Stages of parity.json -> column of the table
COLUMNS = {
    "forward pass": ("forward",),
    "gradients": ("backward", "gradients"),
    "forward pass in training": ("training forward",),
    "gradients in training": ("training backward", "training gradients"),
    "running statistics": ("training statistics",),
    "one update": ("one update",),
}
WIDTH = 118  # of a line of text
REFUSED = "has shape"  # in the error for weights that do not fit


class Audit(NamedTuple):
    """What was found of one model; numbers are of float32 (`counts`: column -> verdict -> taps)."""

    name: str
    verdict: str
    sentence: str
    seconds: int
    taps: int
    counts: dict[str, dict[str, int]]
    findings: list[dict[str, Any]]
    versions: dict[str, str]
    error: str = ""

    @classmethod
    def of(cls, name: str, report: Mapping[str, Any], error: str, seconds: int) -> "Audit":
        """The facts of a report (parity.json); of an error, if there is none."""
        if error:
            findings = [refused(error)] if REFUSED in error else []
            text = "" if findings else error
            return cls(name, "error", f"not compared: {error}", seconds, 0, {}, findings, {}, text)
        counts: dict[str, dict[str, int]] = {}
        for stage in report["stages"]:
            for column, stages in COLUMNS.items():
                if stage["precision"] == "float32" and stage["stage"] in stages:
                    cell = counts.setdefault(column, {})
                    for verdict, number in stage["counts"].items():
                        cell[verdict] = cell.get(verdict, 0) + number
        findings = [finding_facts(finding) for finding in report["findings"]]
        versions = {key: str(facts["version"]) for key, facts in report["environment"].items()}
        taps = sum(report["counts"].values())
        return cls(
            name, report["verdict"], report["sentence"], seconds, taps, counts, findings, versions
        )


def refused(error: str) -> dict[str, Any]:
    """A finding for a model whose weights have other shapes: there is nothing to compare."""
    text = error.partition("; and ")[0]
    facts = {"kind": "other structure", "text": text, "place": "parameters", "code": "shapes"}
    return facts | {"source": "", "explained": 0}


def finding_facts(finding: Mapping[str, Any]) -> dict[str, Any]:
    """What the page says of a finding."""
    causes = finding["causes"]
    return {
        "kind": finding["kind"],
        "text": finding["text"],
        "place": f"{finding['stage']}/{finding['tap']}",
        "code": causes[0][0] if causes else "",
        "source": finding["source"],
        "explained": len(finding["explained"]),
    }


def entry_of(finding: Mapping[str, Any], entries: Sequence[Entry]) -> Entry | None:
    """The entry of upstream.yaml that describes a finding."""
    fitting = (e for e in entries if e.explains(finding["code"], finding["place"], finding["kind"]))
    return next(fitting, None)


def unknown_findings(audits: Sequence[Audit], entries: Sequence[Entry]) -> list[str]:
    """Findings that no entry describes, and models that were not compared."""
    errors = [f"{audit.name}: {audit.error}" for audit in audits if audit.error]
    return errors + [
        f"{audit.name}: no entry of upstream.yaml for: {finding['kind']}: {finding['text']}"
        for audit in audits
        for finding in audit.findings
        if entry_of(finding, entries) is None
    ]


def cell(counts: Mapping[str, int]) -> str:
    """A cell: how many taps agree, or how many do not."""
    number = sum(counts.values())
    bad = {key: n for key, n in counts.items() if n and key not in ("equivalent", "vacuous")}
    if not number:
        return "–"
    if not bad:
        return f"{number} equal"
    return ", ".join(f"{n} {verdict}" for verdict, n in bad.items()) + f" of {number}"


def table(audits: Sequence[Audit], entries: Sequence[Entry]) -> list[str]:
    """One row for each model."""
    heads = ["model", "against", *COLUMNS, "entries below"]
    rows = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for audit in audits:
        model = BY_NAME[audit.name]
        found = {e.id for f in audit.findings if (e := entry_of(f, entries))}
        listed = ", ".join(f"[{e.id}](#{e.id})" for e in entries if e.id in found)
        cells = [cell(audit.counts.get(column, {})) for column in COLUMNS]
        against = f"{model.library} {model.theirs}".strip()
        rows.append("| " + " | ".join([audit.name, against, *cells, listed or "none"]) + " |")
    return rows


def wrapped(text: str, indent: str = "") -> list[str]:
    """A paragraph, or an item of a list whose further lines are indented, as lines of text."""
    return wrap(
        text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def entry_lines(entry: Entry, audits: Sequence[Audit], entries: Sequence[Entry]) -> list[str]:
    """The section of one entry: what it does, where, the models, and lines that show it."""
    models = [a.name for a in audits if any(entry_of(f, entries) is entry for f in a.findings)]
    seen = ", ".join(models) if models else "none of these models; found while reading"
    return [
        f"### {entry.id}",
        "",
        *wrapped(f"**{entry.title}** (`{entry.source}`). {entry.effect}"),
        "",
        *wrapped(f"Seen in: {seen}."),
        "",
        "```python",
        *entry.jittor.splitlines(),
        f"# Jittor prints: {entry.jittor_prints}",
        "```",
        "",
        "```python",
        *entry.pytorch.splitlines(),
        f"# PyTorch prints: {entry.pytorch_prints}",
        "```",
        "",
    ]


def page_text(audits: Sequence[Audit], entries: Sequence[Entry]) -> str:
    """The tables and sections of the page; its introduction is written by hand."""
    lines = ["## Models", "", *table(audits, entries), "", "## What is wrong upstream", ""]
    for entry in entries:
        lines += entry_lines(entry, audits, entries)
    lines += ["## Findings, model by model", ""]
    for audit in audits:
        lines += [f"**{audit.name}** ({audit.taps:,} taps, {audit.seconds} s)", ""]
        for number, finding in enumerate(audit.findings, 1):
            lines += wrapped(f"{number}. {finding['kind']}: {finding['text']}", "   ")
        lines += [] if audit.findings else wrapped(audit.sentence)
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"
