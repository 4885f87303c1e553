"""Whether a fault is large enough to explain a row.

An error grows along a pass as the baseline's own rounding does, because both pass through the same
functions. So a row follows from a fault if its error is at most `FACTOR` times the largest error
that the fault shows, times the growth of the noise between the two. Above that it has another
cause, and starts a finding.

A gradient may grow faster: a forward error moves some inputs of ReLU over the corner. For a small
relative error e, the gradient then errs by about the square root of e.
"""

from dataclasses import dataclass
from math import inf, isfinite, sqrt

from parity.comparison.measure import ROUNDOFF
from parity.comparison.verdict import Row

FACTOR = 100.0
OF_GRADIENTS = ("backward", "gradients", "update")


@dataclass
class Size:
    """The largest error of many rows, and the largest multiple of a row's noise."""

    error: float = 0.0
    multiple: float = 0.0

    def add(self, row: Row, shows: bool) -> None:
        """Count a row of a fault. `shows`: it shows the fault by itself, whatever its size."""
        if has_size(row):
            self.error = max(self.error, row.error)
            self.multiple = max(self.multiple, row.error / noise_of(row))
        elif shows:
            self.error = inf

    def brings(self, row: Row, kind: str) -> bool:
        """Whether such errors can bring the error of a row. `kind`: what the row's tap is."""
        if not has_size(row):
            return True
        expected = max(self.error, self.multiple * noise_of(row))
        limit = FACTOR * expected
        if kind in OF_GRADIENTS:
            limit = max(limit, sqrt(limit))
        return row.error <= limit


def has_size(row: Row) -> bool:
    """Whether a row's error is the size of a difference: not of a choice, nor of other rules."""
    is_choice = row.stage.endswith("choices")
    return not row.reason and not is_choice and isfinite(row.error) and isfinite(noise_of(row))


def noise_of(row: Row) -> float:
    """The baseline's own noise at a row; at least one roundoff."""
    return max(
        row.noise_floor, row.baseline_error, ROUNDOFF.get(row.precision, ROUNDOFF["float32"])
    )
