"""The facts of a model (`transfg_core.inference.facts`) in words, as HTML."""

from collections.abc import Iterable
from typing import Any

from transfg.demo.pool import Answer
from transfg.demo.text import Text, escape


def facts_table(text: Text, described: Answer, prefix: str) -> str:
    """A table of what is known about a model; `prefix` makes the ids of its hints unique."""
    rows = "".join(
        f'<div class="tf-fact"><dt>{text(key)}</dt><dd>{value}</dd></div>'
        for key, value in rows_of(text, described, prefix)
    )
    closed = text("closed_hint")
    return f'<dl class="tf-facts">{rows}</dl><p class="tf-small">{closed}</p>'


def rows_of(text: Text, described: Answer, prefix: str) -> Iterable[tuple[str, str]]:
    """Key of the row's name -> its value as HTML."""
    facts = described["facts"]
    data = facts["data"]
    yield "fact_accuracy", accuracy(text, facts, prefix)
    yield "fact_data", text("data_value", name=data["name"], classes=data["classes"])
    backend = facts["backend"]
    yield "fact_backend", text(backend) if text.has(backend) else escape(backend)
    updates = facts["updates"] or facts["update"]
    yield "fact_step", text("step_value", update=facts["update"], updates=updates)
    yield "fact_size", escape(f"{facts['parameters']:,}")
    yield "fact_input", input_of(text, described["input"])
    notes = [*described["cautions"], *([facts["caution"]] if facts["caution"] else [])]
    for note in notes:
        yield "fact_caution", f'<span lang="en">{escape(note)}</span>'


def accuracy(text: Text, facts: Answer, prefix: str) -> str:
    """The accuracy on the test split, and how the step was chosen."""
    test = facts["accuracy"]
    if not test or test["top1"] is None:
        return text("accuracy_unknown")
    value = text("accuracy_value", value=f"{100 * test['top1']:.1f}", images=test["images"])
    subject = text.plain("fact_accuracy")
    said = value + hint(text, f"{prefix}-top1", subject, text("accuracy_hint"))
    if facts["chosen_on"]:
        said += f'<br><span class="tf-small">{text("chosen_" + facts["chosen_on"])}</span>'
    return said


def input_of(text: Text, seen: dict[str, Any]) -> str:
    """What happens to a picture before the model sees it."""
    crop, resize = seen["crop"], seen["resize"]
    size = " × ".join(map(str, crop[::-1]))
    if resize is None:
        return text("input_unresized", crop=size)
    if isinstance(resize, int):
        return text("input_value", resize=text.plain("shorter_side", side=resize), crop=size)
    return text("input_value", resize=" × ".join(map(str, resize[::-1])), crop=size)


def hint(text: Text, name: str, subject: str, explanation: str) -> str:
    """A small button that shows an explanation of `subject`, which is HTML; it needs no script."""
    return (
        f'<button type="button" class="tf-hint" popovertarget="{name}" '
        f'aria-label="{text("hint", subject=subject)}">?</button>'
        f'<span popover id="{name}" class="tf-pop">{explanation}</span>'
    )
