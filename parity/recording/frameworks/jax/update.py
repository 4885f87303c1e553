"""One step of optax's optimisers, from the settings of a pair file (PyTorch's names)."""

from collections.abc import Mapping
from typing import Any

from parity.errors import ParityError

# setting of the pair file -> optax's
SGD = {"lr": "learning_rate", "momentum": "momentum", "nesterov": "nesterov"}
ADAMW = {"lr": "learning_rate", "eps": "eps", "weight_decay": "weight_decay"}
BETAS = (0.9, 0.999)  # PyTorch's and optax's default


def optimiser(optax: Any, settings: Mapping[str, Any]) -> Any:
    """optax's sgd, after `add_decayed_weights` if weights decay; or its adamw.

    Raises:
        ParityError: a setting has no counterpart in optax.
    """
    given = {key: value for key, value in settings.items() if key != "name"}
    if settings["name"] == "adamw":
        b1, b2 = given.pop("betas", BETAS)
        return optax.adamw(b1=b1, b2=b2, **_translated(given, ADAMW))
    decay = given.pop("weight_decay", 0.0)
    sgd = optax.sgd(**_translated(given, SGD))
    return optax.chain(optax.add_decayed_weights(decay), sgd) if decay else sgd


def _translated(given: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    for key in given:
        if key not in names:
            raise ParityError(f"update: jax: expected some of {', '.join(names)}, found {key!r}")
    return {names[key]: value for key, value in given.items()}
