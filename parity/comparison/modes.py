"""The two modes of a pass, and the branch that a recording chose in each (`branches.py`)."""

from collections.abc import Mapping

MODES = ("evaluation", "training")
Branch = str | Mapping[str, str] | None  # of a whole recording, or of each mode


def mode_of(tap: str) -> str:
    """The mode of the pass that a tap, or a stage, belongs to."""
    words = tap.partition("/")[0].split()
    return MODES["training" in words or words[:2] == ["one", "update"]]


def branch_of(branch: Branch, mode: str) -> str | None:
    """The branch of one mode, as a manifest states it."""
    return branch.get(mode) if isinstance(branch, Mapping) else branch
