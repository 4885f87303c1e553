"""The place of a finding, in the candidate's own names and files, and whose fault it is."""

from dataclasses import replace
from pathlib import Path

import pytest

from parity.comparison.trace import Trace
from parity.comparison.verdict import Evidence, OneSided
from parity.diagnose.answer import answer
from parity.diagnose.causes.rules import rule_for
from parity.diagnose.reach import pass_of
from parity.diagnose.shown import fault_of
from parity.diagnose.sources import Sources
from parity.diagnose.stages import place_of
from parity.diagnose.upstream import ENTRIES, Code, known_fault, load_entries
from parity.diagnose.where import container_of, readers_of
from parity.matching.views import Taps
from tests.parity.diagnose.test_answer import compared

DIAGNOSE = ENTRIES.parent
OWN = {"one": "a", "relu": "act", "two": "b.fc", "norm": "b.bn", "three": "b.head"}
TABLE = {
    "": {"module": "Net", "source": "mine.py:9"},
    "b": {"module": "Block", "source": "mine.py:3"},
}


def renamed(trace):
    """The trace of a candidate that has other names and is written in Jittor."""
    plan = {}
    for tap in trace.taps:
        stage, _, path = tap.rpartition("/")
        first, _, rest = path.partition(".")
        own = ".".join(part for part in (OWN.get(first, first), rest) if part)
        plan[tap] = ((f"{stage}/{own}",), None)
    taps = {own[0]: trace.taps[tap] for tap, (own, _) in plan.items()}
    operations = {
        tap: made | {"source": made["source"].replace("lib/", "jittor/")}
        for tap, made in trace.manifest["operations"].items()
    }
    manifest = trace.manifest | {"operations": operations, "containers": TABLE}
    manifest["producer"] = manifest["producer"] | {"name": "jittor"}
    return replace(trace, taps=Taps(taps, plan), manifest=manifest)


def asked(*faults, change=renamed):
    rows, pairs, _ = compared(*faults)
    pairs = [replace(pair, candidate=change(pair.candidate)) for pair in pairs]
    return answer(rows, pairs, OneSided()).findings


def test_a_finding_has_the_candidates_own_name_and_a_known_fault_is_said_to_be_one():
    (found,) = asked("biased")
    assert "(norm, in the candidate b.bn, Batch_Norm in jittor/norm.py:1)" in found.text
    end = ". A known fault of Jittor, not of the port: running-variance, jittor/nn.py:688"
    assert found.text.endswith(end) and found.known == "running-variance"
    (found,) = asked("eps")
    assert "fault of Jittor" not in found.text and not found.known


def test_a_module_of_the_ports_own_is_no_known_fault():
    (found,) = asked("biased", change=of_the_port)
    assert found.code == "biased" and "fault of Jittor" not in found.text


def test_without_a_file_it_may_be_the_frameworks():
    def bare(trace):
        trace = renamed(trace)
        trace.manifest["operations"].clear()
        return trace

    (found,) = asked("biased", change=bare)
    assert ". It may be a fault of Jittor: running-variance" in found.text and not found.known


def of_the_port(trace):
    trace = renamed(trace)
    for made in trace.manifest["operations"].values():
        made["source"] = "mine.py:1"
    return trace


def test_the_same_fault_in_the_ports_own_module_is_a_finding_of_its_own():
    """Else one batch norm of Jittor's excused another one, written for the port."""
    rows, pairs, _ = compared("biased")
    row = next(r for r in rows if r.tap == "norm.running_var" and "isolated" in r.stage)
    place = place_of(row.stage, row.tap)

    def key(change):
        changed = [replace(pair, candidate=change(pair.candidate)) for pair in pairs]
        graph = pass_of(changed[0].baseline)
        return fault_of(row, None, place, Sources(changed), graph, rule_for, set()).key

    assert key(renamed) == key(renamed) != key(of_the_port)


def test_a_setting_that_shows_the_cause_is_the_ports():
    """A pool of Jittor's ignores count_include_pad=False; one that was made with True does not."""
    found = {f.code: f for f in asked("biased", "eps")}
    assert found["biased"].known and not found["eps"].known  # another setting of this module
    rows, pairs, _ = compared("biased")
    for pair, value in [(pair, value) for pair in pairs for value in (False, True)]:
        trace = pair.candidate if value else pair.baseline
        trace.manifest["operations"]["forward/norm"]["settings"]["biased"] = value
        trace.manifest["operations"]["forward/norm"]["settings"]["affine"] = value  # said first
    pairs = [replace(pair, candidate=renamed(pair.candidate)) for pair in pairs]
    (biased,) = answer(rows, pairs, OneSided()).findings
    assert "biased True instead of False" in biased.text and not biased.known


def test_a_function_outside_of_modules_has_the_file_of_its_container():
    (found,) = asked("outside")
    assert found.text.startswith("between two and norm, outside of modules")
    assert "(Block b in mine.py:3)" in found.text and found.source == "mine.py:3"


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["b.fc", "b.bn"], ("Block b in mine.py:3", "mine.py:3")),
        (["b.fc"], ("Block b in mine.py:3", "mine.py:3")),
        (["b.fc", "b2.bn"], ("Net in mine.py:9", "mine.py:9")),
        (["b.c.fc", "b.d.fc"], ("Block b in mine.py:3", "mine.py:3")),
        (["a", ""], ("Net in mine.py:9", "mine.py:9")),
        ([""], ("Net in mine.py:9", "mine.py:9")),
    ],
)
def test_the_innermost_container_of_two_places(paths, expected):
    trace = Trace(Path("b.npz"), {"containers": TABLE}, {})
    sources = Sources([Evidence(trace, trace, None, (), ())])
    assert container_of(paths, sources) == expected
    bare = Sources([Evidence(Trace(Path("b"), {}, {}), Trace(Path("b"), {}, {}), None, (), ())])
    assert container_of(paths, bare) == ("", "")


def test_what_reads_an_output():
    """The gradient by an output is wrong in what reads the output, not in what made it."""
    _, pairs, _ = compared()
    graph = pass_of(pairs[0].baseline)
    ((name, made),) = readers_of(place_of("backward", "d/one"), graph.made_by)
    assert (name, made.module, made.operation) == ("relu", "Relu", "relu")
    (found,) = (f for f in asked("slope") if f.direction == "backward")
    assert "(one, in the candidate a, which Relu relu reads)" in found.text


OURS, MINE, NONE = "jittor/nn.py:671", "mine.py:3", ""


@pytest.mark.parametrize(
    ("frameworks", "code", "direction", "sources", "operations", "expected"),
    [
        ("torch jittor", "biased", "forward", [OURS], ["batch_norm"], ("running-variance", True)),
        ("torch jittor", "biased", "forward", [OURS, MINE], ["batch_norm"], None),
        ("torch jittor", "biased", "forward", [NONE], [""], ("running-variance", False)),
        ("torch jittor", "biased", "forward", [], [], ("running-variance", False)),
        ("torch jax", "biased", "forward", [OURS], ["batch_norm"], None),
        ("jittor jittor", "biased", "forward", [OURS], ["batch_norm"], None),
        ("torch jittor", "float32 constant", "backward", [OURS], ["gelu"], ("erf-slope", True)),
        ("torch jittor", "float32 constant", "backward", [NONE], [""], ("erf-slope", False)),
        ("torch jittor", "float32 constant", "backward", [MINE], [""], None),
        ("torch jittor", "float32 constant", "backward", [OURS], ["gelu", "linear"], None),
        ("torch jittor", "float32 constant", "forward", [OURS], ["gelu"], None),
        ("torch jittor", "unused decay", "update", [MINE], [], ("decay-of-unused", True)),
        ("torch jittor", "one-pass", "forward", [OURS], ["group norm"], None),
        ("torch jittor", "rounding", "forward", [OURS], ["batch_norm"], None),
        ("torch jittor", "eps", "forward", [OURS], ["batch_norm"], None),
    ],
)
def test_known_faults(frameworks, code, direction, sources, operations, expected):
    at = Code(frozenset(sources), frozenset(operations))
    entry, sure = known_fault(frameworks.split(), code, direction, at)
    assert ((entry.id, sure) if entry else None) == expected


def test_sure_codes_are_codes_of_their_entries_and_no_code_is_of_two():
    sure = [code for entry in load_entries() for code in entry.sure]
    assert len(sure) == len(set(sure)) == 7
    assert all(set(entry.sure) <= set(entry.codes) for entry in load_entries())
    sources = (path.read_text(encoding="utf-8") for path in DIAGNOSE.rglob("*.py"))
    text = "".join(source for source in sources)
    assert all(f'"{code}"' in text for code in sure)  # a code that nothing gives would do nothing
