"""Which recordings a pair needs, in their order, as a table.

The candidate computes first, by its own choices. The baseline follows them (choices.py), so that
all gradients that are compared are on one branch.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

from parity.recording.pair import Pair

CANDIDATE_VARIANTS = 2  # how noisy is the candidate itself?
FLOAT64_VARIANTS = 2
SOURCE = "baseline-pass-float32"  # what isolated replay is fed with


@dataclass(frozen=True)
class Request:
    """One recording. `follow` and `source` are names of others, which come before it."""

    side: str
    kind: str  # pass or isolated
    precision: str
    variant: str | None = None
    follow: str | None = None
    source: str | None = None
    branch: str = ""  # `own`: the float64 baseline that follows the candidate's float64 choices

    @property
    def precision_of_side(self) -> str:
        """All recordings of its side in its precision."""
        return f"{self.side} {self.precision}"

    @property
    def name(self) -> str:
        """`baseline-pass-float32-ulp1`: the name of the file, without its suffix."""
        words = [self.side, self.kind, self.precision, self.branch]
        words.append((self.variant or "").replace(":", ""))
        return "-".join(word for word in words if word)


def requests(pair: Pair, abilities: dict[str, Collection[str]]) -> list[Request]:
    """All recordings of a pair, given what each side's framework can do."""
    kinds = ["pass"]
    if all("isolated" in able for able in abilities.values()) and pair.modes:
        kinds.append("isolated")
    made = [request for kind in kinds for request in _in_float32(kind, pair)]
    exact = pair.float64 and "float64" in abilities["baseline"]
    both = exact and "float64" in abilities["candidate"]
    for kind in kinds if exact else []:
        made += _in_float64(kind, both, pair.variants > 0)
    return made


def _in_float32(kind: str, pair: Pair) -> list[Request]:
    source = SOURCE if kind == "isolated" else None
    first = Request("candidate", kind, "float32", source=source)
    baseline = Request("baseline", kind, "float32", None, first.name, source)
    candidate = replace(baseline, side="candidate")
    noise = [replace(baseline, variant=f"ulp:{n + 1}") for n in range(pair.variants)]
    count = min(pair.variants, CANDIDATE_VARIANTS)
    own_noise = [replace(candidate, variant=f"ulp:{n + 1}") for n in range(count)]
    return [first, baseline, *noise, *own_noise]


def _in_float64(kind: str, both: bool, variants: bool) -> list[Request]:
    source = SOURCE if kind == "isolated" else None
    reference = Request("baseline", kind, "float64", None, f"candidate-{kind}-float32", source)
    if not both:
        return [reference]
    candidate = Request("candidate", kind, "float64", source=source)
    baseline = replace(reference, follow=candidate.name, branch="own")
    count = FLOAT64_VARIANTS if variants else 0
    noise = [replace(baseline, variant=f"ulp:{n + 1}") for n in range(count)]
    return [reference, candidate, baseline, *noise]
