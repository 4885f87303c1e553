"""What each trace of a comparison is for, and under which names its taps are compared.

    evidence = find_evidence([read_trace(path) for path in paths], {"forward/h(.)": r"forward/b\1"})

Roles follow from the manifests alone. Needs NumPy alone.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from glob import escape
from pathlib import Path
from typing import Any

import yaml

from parity.comparison.measure import ROUNDOFF
from parity.comparison.trace import PRODUCER, Trace
from parity.comparison.verdict import Evidence
from transfg_core.errors import UserError
from transfg_core.models.rows import KEY_BIASES

# What makes two recordings work of one producer: a float64 reference may come from another device,
# but noise is measured where the claim is made
SAME = {"reference": PRODUCER[:2], "variant": PRODUCER}


def read_names(path: Path | str) -> dict[str, str]:
    """A mapping of tap names from a YAML file of lines `pattern: replacement`.

    Raises:
        UserError: the file is missing or holds something else.
    """
    try:
        names = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: expected a YAML file of tap names: {error}") from error
    if not isinstance(names, dict) or not all(
        isinstance(text, str) for pair in names.items() for text in pair
    ):
        raise UserError(f"{path}: expected lines `pattern: replacement`, both of them text")
    return names


def rename_taps(trace: Trace, mapping: Mapping[str, str]) -> Trace:
    """The trace with other tap names.

    Each pattern is a regular expression for a whole name `stage/tap`; its replacement may use its
    groups (`\\1`). The first that fits counts; a name that none fits stays.

    Raises:
        UserError: a pattern is wrong or fits no tap, or two taps would get one name.
    """
    taps: dict[str, Any] = {}
    used = set()
    for name, value in trace.taps.items():
        new = name
        for pattern, replacement in mapping.items():
            try:
                match = re.fullmatch(pattern, name)
                new = match.expand(replacement) if match else name
            except (re.error, IndexError) as error:
                raise UserError(f"names: {pattern}: {replacement}: {error}") from error
            if match:
                used.add(pattern)
                break
        if new in taps:
            raise UserError(f"{trace.path}: names: two taps would be called {new}, one is {name}")
        taps[new] = value
    for pattern in mapping:
        if pattern not in used:
            raise UserError(f"{trace.path}: names: {pattern} fits none of its {len(taps)} taps")
    return replace(trace, taps=taps)


def _side(trace: Trace, pair: Sequence[Trace], role: str) -> int:
    """Whether a trace is of the first's producer (0) or of the candidate's (1)."""
    facts = [tuple(one.producer(key) for key in SAME[role]) for one in (trace, *pair)]
    if facts[0] not in facts[1:]:
        found = [", ".join(map(str, one)) for one in facts]
        raise UserError(
            f"{trace.path}: a {role} by {found[0]}, but the first two traces are by {found[1]} and "
            f"by {found[2]}; record it where one of them was recorded"
        )
    return facts[1:].index(facts[0])


def _refuse_pair(pair: Sequence[Trace], more: bool) -> None:
    for trace in pair:
        if trace.manifest.get("variant"):
            raise UserError(
                f"{trace.path}: a variant ({trace.manifest['variant']}) among the first two; give "
                "the two traces to compare first, variants and the float64 reference after them"
            )
        if trace.manifest["precision"] not in ROUNDOFF:
            raise UserError(
                f"{trace.path}: precision {trace.manifest['precision']!r}: expected one of "
                f"{', '.join(ROUNDOFF)}"
            )
    if more and len({tuple(t.producer(key) for key in SAME["variant"]) for t in pair}) == 1:
        raise UserError(
            f"{pair[0].path} and {pair[1].path} are by one producer, so that it cannot be told "
            "whose the other traces are; record the two under different names or versions"
        )
    one, two = (trace.manifest["precision"] for trace in pair)
    if one != two:
        raise UserError(
            f"{pair[0].path} is in {one}, {pair[1].path} in {two}; the first two traces are the "
            "pair to compare, in one precision"
        )


@dataclass
class Pair:
    """Two traces of one precision, and what is known about each: (the first's, the candidate's)."""

    traces: list[Trace | None]
    reference: Trace | None = None
    variants: tuple[list[Trace], list[Trace]] = field(default_factory=lambda: ([], []))


def find_evidence(
    traces: Sequence[Trace],
    mapping: Mapping[str, str] | None = None,
    siblings: Mapping[str, str] | None = None,
) -> list[Evidence]:
    """What each trace is for, as their manifests say.

    The first two are the pair. The others: a float64 recording by the first's producer is the
    reference; one by the candidate's producer too is compared with it as a pair of its own; those
    with a variant measure the noise of whoever computed them.

    Raises:
        UserError: a trace has no role, or two have one that is single.
    """
    names, zeros = mapping or {}, traces[0].manifest.get("zeros") or {} if traces else {}
    exactly = {escape(name): f"{name}>{sibling}" for name, sibling in zeros.items()}
    found = []
    for pair in _pairs(traces):
        first, candidate = pair.traces
        assert first and candidate
        evidence = Evidence(
            first,
            rename_taps(candidate, names),
            pair.reference,
            pair.variants[0],
            [rename_taps(one, names) for one in pair.variants[1]],
            siblings={**exactly, **KEY_BIASES, **(siblings or {})},
        )
        found.append(evidence)
    return found


def _pairs(traces: Sequence[Trace]) -> list[Pair]:
    """The pair to compare and, if there is one, that in float64."""
    if len(traces) < 2:
        raise UserError(f"compare: expected two traces or more, found {len(traces)}")
    main, exact = Pair(list(traces[:2])), Pair([None, None])
    _refuse_pair(traces[:2], any(t.manifest.get("variant") for t in traces[2:]))
    precision = traces[0].manifest["precision"]
    for trace in traces[2:]:
        own, variant = trace.manifest["precision"], trace.manifest.get("variant")
        side = _side(trace, traces[:2], "variant" if variant else "reference")
        if variant and own in (precision, "float64"):
            (main if own == precision else exact).variants[side].append(trace)
        elif variant or own != "float64" or precision == "float64":
            raise UserError(
                f"{trace.path}: {trace.label} has no part in comparing {traces[0].label} with "
                f"{traces[1].label}; expected a float64 reference, or variants in {precision}"
            )
        elif known := exact.traces[side]:
            raise UserError(f"{known.path} and {trace.path}: two float64 references; give one")
        else:
            exact.traces[side] = trace
    main.reference = exact.traces[0]
    if not exact.traces[1] and not any(exact.variants):
        return [main]
    for ours, known in zip(traces[:2], exact.traces, strict=True):
        if not known:
            raise UserError(
                f"compare: to compare in float64, too, a float64 trace of {ours.producer('name')} "
                "is missing"
            )
    return [main, exact]
