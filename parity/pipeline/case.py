"""The case that everything starts from, and other settings for it."""

from collections.abc import Mapping
from typing import Any

from parity.cases import Case
from transfg_core.config import Config, build_config
from transfg_core.data.toy import CLASSES

PIPELINE = Case(
    "pipeline",
    model={"classes": len(CLASSES)},
    optim={"name": "sgd", "lr": 0.03, "warmup": 0},
    updates=2,
)


def changed(config: Config, **sections: Mapping[str, Any]) -> Config:
    """The configuration with some keys replaced."""
    tree = config.model_dump(mode="json")
    for section, values in sections.items():
        tree[section] |= values
    return build_config(tree, "parity pipeline")
