"""The model of a case, by the case name in its traces and rows."""

from functools import cache

from parity.cases.case import BY_NAME
from parity.cases.golden import BY_GOLDEN
from transfg_core.config.model import ModelConfig


@cache
def model_of_case(name: str) -> ModelConfig | None:
    """The section `model` of a case; None if the suite has no case of this name."""
    case = (BY_NAME | BY_GOLDEN).get(name)
    return case.config().model if case else None
