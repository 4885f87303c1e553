"""A recording to be made, as a child process is told of it."""

import json
from dataclasses import asdict, dataclass

from parity.cases.case import BY_NAME, WEIGHTS, Case
from parity.cases.golden import BY_GOLDEN, Golden
from parity.suite.checks.case import CHECKS
from transfg_core.errors import UserError

BASELINE = "torch"  # the backend that others are judged against


@dataclass(frozen=True)
class Job:
    """One recording. `kind`:

    case      a pass, updates, an evaluation
    pieces    the pass cut at every tap, each piece fed from the trace `source`
    continue  one update from the state after the last in the trace `source`
    pipeline  what happens around the model; `source` is the first golden case's checkpoint
    """

    backend: str
    case: str
    out: str
    kind: str = "case"
    precision: str = "float32"
    variant: str | None = None
    source: str | None = None
    force: str | None = None  # a trace whose part indices are used throughout
    run: str | None = None  # `pipeline`: checkpoint of a run, made where there is none
    weights: str | None = None  # a .safetensors file to start from instead of the case's own
    seed: int | None = None  # another seed, with weights of the kind `draw`
    draw: str = "noise"
    fine: bool = False  # taps inside blocks in any case
    sketch_above: int | None = None

    def subject(self) -> Case | Golden:
        """What is recorded.

        Raises:
            UserError: there is no such case, or it has no such weights.
        """
        known = BY_NAME | BY_GOLDEN | {CHECKS.name: CHECKS}
        if self.case not in known:
            raise UserError(f"--case {self.case}: expected one of {', '.join(known)}")
        case = known[self.case]
        if self.draw not in WEIGHTS:
            raise UserError(f"--draw {self.draw}: expected one of {', '.join(WEIGHTS)}")
        if self.seed is None and self.draw != "noise":
            raise UserError(f"--draw {self.draw}: needs --seed; a case has weights of its own")
        if self.seed is None:
            return case
        if not isinstance(case, Case):
            raise UserError(f"--seed: expected a case of this project's, found {self.case}")
        return case.reseeded(self.seed, self.draw)


def as_fields(jobs: list[Job]) -> str:
    """Jobs as the child process reads them."""
    return json.dumps([asdict(job) for job in jobs])
