"""What the stages of a trace hold, and in which order they are computed."""

from typing import NamedTuple

# last word of a stage -> kind of its taps
KINDS = {
    "parameters": "state",
    "loading": "state",
    "data": "state",
    "forward": "forward",
    "inputs": "forward",
    "choices": "forward",
    "selection": "forward",
    "losses": "loss",
    "backward": "backward",
    "gradients": "gradients",
    "statistics": "statistics",
    "update": "update",
    "updates": "update",
}
ORDER = ("state", "random", "forward", "loss", "backward", "gradients", "statistics", "update", "")
DIRECTIONS = {"state": "data", "backward": "backward", "gradients": "backward", "update": "update"}


class Place(NamedTuple):
    """A tap's place: whether one module ran alone, in which mode, what it is, and its name.

    `name` has no prefix: the module's tap of an activation or its gradient, the parameter of a
    gradient, a statistic or a step.
    """

    isolated: bool
    training: bool
    kind: str
    name: str


def place_of(stage: str, tap: str) -> Place:
    """The place of a tap `stage/tap`; a stage of another program has the empty kind."""
    words = stage.split(" ")
    if tap == "random" and stage in ("training", "evaluation"):
        return Place(False, stage == "training", "random", tap)
    kind = KINDS.get(words[-1], "")
    training = "training" in words[:-1] or kind in ("statistics", "update")
    name = tap
    for prefix in ("d/", "step/", "grad/"):
        name = name.removeprefix(prefix) if kind not in ("forward", "state") else name
    return Place("isolated" in words, training, kind, name)


def module_of(path: str) -> str:
    """The module of a tap: without the number of its call and the place of an output.

    `layer1.0.relu#2` -> `layer1.0.relu`.
    """
    return path.partition("#")[0]
