"""docs/results/planted-pairs.md: what was planted, and what the answers said."""

import os
import platform
from collections.abc import Sequence
from datetime import date

import torch

from tools.planted_pairs.trying import Outcome

HEAD = """# Faults planted in pairs of models

Does `parity run` catch the faults that ports have, place them, and name them? The tool plants each
fault in one of two equal PyTorch models, records both, and reads the answer. The networks are
small: convolutions with batch norms and pools, a residual network, a transformer with masks, a
decoder, and a mobile network with groups. [Planted faults](planted-faults.md) are the same for this
project's own suite.

```sh
python -m tools.planted_pairs --out build/planted        # {minutes} minutes
python -m tools.planted_pairs --only 'mask-*' --keep     # some of them; keeps the traces
python -m tools.planted_pairs --resnet18                 # three faults in one ResNet-18
```

## Result

Measured on {day} ({machine}, PyTorch {version}), while other work ran:

| faults | number |
| --- | ---: |
"""
NOTES = """
- *Caught*: the verdict is not `equivalent`. *Placed*: a finding is at the faulty module or
  parameter. *Named*: this finding has the expected cause. *Class*: another function, less precise,
  or other state.
- *More*: findings beside the one that is expected.
- A control is the same function, computed or built otherwise. It is right if it is `equivalent` and
  there is no finding.
- Most faults are in the forward pass of a module whose settings stay as they are. So no manifest
  shows them.
"""


def page(outcomes: Sequence[Outcome]) -> str:
    """The page of all outcomes, in Markdown."""
    faults = [each for each in outcomes if each.entry.kind]
    clean = [each for each in outcomes if not each.entry.kind]
    minutes = sum(each.seconds for each in outcomes) / 60
    text = HEAD.format(
        minutes=f"{minutes:.0f}", day=day(), machine=machine(), version=torch.__version__
    )
    for name, count in (
        ("planted", len(faults)),
        ("caught", sum(each.caught for each in faults)),
        ("placed", sum(each.placed for each in faults)),
        ("named", sum(each.named for each in faults)),
        ("with the right class", sum(each.classed for each in faults)),
        ("with one finding alone", sum(len(each.findings) == 1 for each in faults)),
        ("controls", len(clean)),
        ("of these right", sum(each.right for each in clean)),
    ):
        text += f"| {name} | {count} |\n"
    return text + NOTES + table(faults) + controls(clean)


def table(faults: Sequence[Outcome]) -> str:
    """A row for each fault."""
    lines = [
        "",
        "## Each fault",
        "",
        "| fault | network | verdict | placed | named | class | more | cause |",
        "| --- | --- | --- | --- | --- | --- | ---: | --- |",
    ]
    for each in faults:
        marks = " | ".join(yes(value) for value in (each.placed, each.named, each.classed))
        cause = each.first.causes[0][1] if each.first and each.first.causes else "none"
        cause = cause.replace("|", "/")
        facts = f"{each.entry.name} | {each.entry.net} | {each.verdict}"
        lines.append(f"| {facts} | {marks} | {each.more} | {cause} |")
    return "\n".join(lines) + "\n"


def controls(clean: Sequence[Outcome]) -> str:
    """A row for each control."""
    lines = [
        "",
        "## Controls",
        "",
        "| control | network | verdict | findings | right |",
        "| --- | --- | --- | ---: | --- |",
    ]
    for each in clean:
        facts = f"{each.verdict} | {len(each.findings)} | {yes(each.right)}"
        lines.append(f"| {each.entry.name} | {each.entry.net} | {facts} |")
    return "\n".join(lines) + "\n"


def yes(value: bool) -> str:
    """The cell of a table."""
    return "yes" if value else "**no**"


def day() -> str:
    """Today, as in the other pages."""
    now = date.today()
    return f"{now.day} {now:%B %Y}"


def machine() -> str:
    """The processor's kind and the number of its cores."""
    return f"{platform.machine()}, {os.cpu_count()} cores"
