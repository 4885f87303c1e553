"""The case that all checks start from, and changes of its settings."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from parity.cases.case import Case
from transfg_core.config.loading import build_config
from transfg_core.config.model import ModelConfig
from transfg_core.config.sections import Config
from transfg_core.data.toy.writing import CLASSES
from transfg_core.models.layout import architecture

CHECKS = Case(
    "checks",
    model={"classes": len(CLASSES)},
    optim={"name": "sgd", "lr": 0.03, "warmup": 0},
    updates=2,
)


def changed(config: Config, **sections: Mapping[str, Any]) -> Config:
    """The configuration with some keys replaced."""
    tree = config.model_dump(mode="json")
    for section, values in sections.items():
        tree[section] |= values
    return build_config(tree, "parity checks")


def with_gradient(names: Iterable[str], model: ModelConfig) -> list[str]:
    """The parameters whose gradient the architecture does not force to zero."""
    zero = architecture(model).ZERO_GRADIENTS
    return [name for name in names if not any(fnmatchcase(name, pattern) for pattern in zero)]
