"""The result of a diagnosis: a cause, the place where it begins, and the taps that it explains."""

from dataclasses import dataclass, field
from typing import Literal

Direction = Literal["data", "forward", "backward", "update"]
Kind = Literal["another function", "less precise", "other structure", "other state"]
# how a cause was found, the surest first
Sureness = Literal["recomputing", "settings", "state", "numbers", "place"]


@dataclass(frozen=True)
class Finding:
    """One cause of differences in one case of a pair, with its likely causes (code, sentence).

    `error` is the largest relative error among the taps that show the cause by themselves (NaN if
    none has one), and `lost` how many decimal digits a less precise one has lost at most.

    `stage` and `tap` are the first place, `places` all modules or taps that have this cause, and
    `explained` all taps (`stage/tap`) that differ because of it, its own included. `source` is the
    file and line of the candidate's code, if the trace has it. `text` is one sentence for people.
    `known` names the entry of upstream.yaml, if this is a known fault of the framework.
    """

    case: str
    pair: str
    precision: str
    stage: str
    tap: str
    direction: Direction
    causes: tuple[tuple[str, str], ...] = field(default=())
    text: str = ""
    kind: Kind = "another function"
    places: tuple[str, ...] = ()
    explained: tuple[str, ...] = ()
    source: str = ""
    shown_by: Sureness = "place"
    error: float = float("nan")
    lost: float | None = None
    known: str = ""

    @property
    def place(self) -> str:
        """Stage and tap."""
        return f"{self.stage}/{self.tap}"

    @property
    def code(self) -> str:
        """The code of the likeliest cause; empty if none is known."""
        return self.causes[0][0] if self.causes else ""
