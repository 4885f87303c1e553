"""The result of a diagnosis: the place of a difference, and its likely causes."""

from dataclasses import dataclass, field
from typing import Literal

Direction = Literal["data", "forward", "backward", "update"]


@dataclass(frozen=True)
class Finding:
    """The first tap that differs in one case, and its likely causes (code, sentence)."""

    case: str
    pair: str
    precision: str
    stage: str
    tap: str
    direction: Direction
    causes: tuple[tuple[str, str], ...] = field(default=())
    text: str = ""

    @property
    def place(self) -> str:
        """Stage and tap."""
        return f"{self.stage}/{self.tap}"
