"""Taps under other names and in declared layouts, read only when they are asked for."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from parity.comparison.sketch import Array, Sketch, Tap
from parity.comparison.stored import is_sketch
from parity.comparison.trace import Trace
from parity.errors import ParityError
from parity.matching.declared import PART, Declared, join, joined, part_of

# tables of the manifest by tap, and the keys of their values that name taps
TABLES = {"operations": ("reads",), "kinks": ("input",)}
# how a tap is made: names of its sources, and a function of their arrays (None: as it is)
Made = tuple[tuple[str, ...], Callable[..., Array] | None]
Plan = Mapping[str, Made]


class Taps(Mapping[str, Tap]):
    """Taps by new names; the plan says how each is made from the taps of a trace."""

    def __init__(self, taps: Mapping[str, Tap], plan: Plan) -> None:
        self.taps, self.plan = taps, plan

    def __getitem__(self, name: str) -> Tap:
        sources, make = self.plan[name]
        values = [self.taps[source] for source in sources]
        if make is None:
            return values[0]
        if any(isinstance(value, Sketch) for value in values):
            raise ParityError(
                f"{name}: stored as a sketch, so its layout cannot be changed; record it whole"
            )
        try:
            return make(*values)
        except ParityError as error:
            raise ParityError(f"{name}: {error}") from error

    def __contains__(self, name: object) -> bool:
        """Whether there is such a tap; nothing is read."""
        return name in self.plan

    def is_sketch(self, name: str) -> bool:
        """Whether a tap is a sketch; nothing is read."""
        return any(is_sketch(self.taps, source) for source in self.plan[name][0])

    def __iter__(self) -> Iterator[str]:
        return iter(self.plan)

    def __len__(self) -> int:
        return len(self.plan)


def own_name(trace: Trace, name: str) -> str:
    """The candidate's own name of a tap; `name` itself if it is made of several taps."""
    plan = trace.taps.plan if isinstance(trace.taps, Taps) else {}
    sources = plan[name][0] if name in plan else ()
    return sources[0] if len(sources) == 1 else name


def parts_plan(trace: Trace, wanted: set[str]) -> Plan:
    """The baseline's taps, with those split or joined that the candidate has otherwise."""
    made: dict[str, Made] = {}
    replaced: dict[str, list[str]] = {}
    for name in sorted(wanted - set(trace.taps)):
        part = PART.fullmatch(name)
        sources = (part.group(1),) if part else joined(name)
        if (part or len(sources) > 1) and all(source in trace.taps for source in sources):
            made[name] = (sources, part_of(name) if part else join)
            replaced.setdefault(sources[0], []).append(name)
            for source in sources[1:]:
                replaced.setdefault(source, [])
    plan: dict[str, Made] = {}
    for name in trace.taps:
        if name in replaced:
            plan |= {new: made[new] for new in replaced[name]}
        else:
            plan[name] = ((name,), None)
    return plan


def layout_plan(
    trace: Trace, names: Mapping[str, str], declared: Declared, baseline: Trace
) -> tuple[Plan, dict[str, str]]:
    """The candidate's taps under their new names, in their declared layouts."""
    plan: dict[str, Made] = {}
    applied = {}
    for name, new in names.items():
        layout = declared.layout(name)
        if layout and new in baseline.taps:
            shape = tuple(baseline.taps[new].shape)
            plan[new] = (
                (name,),
                partial(layout.apply, shape=shape),
            )
            applied[new] = layout.name
        else:
            plan[new] = ((name,), None)
    return plan, applied


def with_new_names(trace: Trace, names: Mapping[str, str]) -> Trace:
    """The trace with the new names in its manifest."""
    manifest: dict[str, Any] = dict(trace.manifest)
    for table, links in TABLES.items():
        if table not in manifest:
            continue
        facts = manifest[table] or {}
        manifest[table] = {
            names.get(tap, tap): {
                key: _follow(value, names) if key in links else value for key, value in fact.items()
            }
            for tap, fact in facts.items()
        }
    if isinstance(manifest.get("free"), list):
        manifest["free"] = [names.get(tap, tap) for tap in manifest["free"]]
    return replace(trace, manifest=manifest)


def _follow(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [names.get(each, each) for each in value]
    return names.get(value, value)
