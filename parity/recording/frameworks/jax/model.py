"""A flax.linen module with its variables, as one object with a state and a mode.

A builder returns the module, or a tuple of it and dicts: its variables (with `params`), or keyword
arguments of its call in each mode (`{"eval": {...}, "train": {...}}`).
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax

from parity.comparison.sketch import Array
from parity.errors import ParityError

PARAMS = "params"
# keyword of a module's call -> its value in training; the opposite in evaluation
MODE_KEYWORDS = {
    "train": True,
    "training": True,
    "is_training": True,
    "deterministic": False,
    "use_running_average": False,
}
MODES = ("eval", "train")

Path = tuple[str, ...]


@dataclass
class FlaxModel:
    """`variables`: name -> array; `places`: name -> keys in flax's nested variables.

    `conv1.kernel` is flax's `params/conv1/kernel`, and `norm1.mean` its `batch_stats/norm1/mean`. A
    name that two collections have keeps its collection in the second one.
    """

    module: nn.Module
    keywords: Mapping[str, Mapping[str, Any]]
    places: dict[str, Path] = field(default_factory=dict)
    variables: dict[str, Any] = field(default_factory=dict)
    training: bool = False
    dropout: bool = False

    @classmethod
    def from_build(cls, built: Any, examples: Mapping[str, Array], seed: int = 0) -> "FlaxModel":
        """The model of what a builder returned; `examples`: inputs that it is initialised with.

        Raises:
            ParityError: it is no flax.linen module.
        """
        module, *options = built if isinstance(built, tuple) else (built,)
        if not isinstance(module, nn.Module):
            raise ParityError(
                "build: expected a flax.linen.Module, or a tuple of it and dicts, found "
                f"{type(module).__name__}"
            )
        keywords: dict[str, Any] = mode_keywords(module)
        variables: Any = None
        for option in options:
            if isinstance(option, Mapping) and PARAMS in option:
                variables = option
            elif isinstance(option, Mapping) and option and set(option) <= set(MODES):
                keywords |= option
            else:
                raise ParityError(
                    "build: beside the module expected its variables (a dict with `params`) or "
                    f'{{"eval": {{...}}, "train": {{...}}}}, found {option!r:.60}'
                )
        model = cls(module, keywords)
        if variables is None:
            inputs = [jax.numpy.asarray(value) for value in examples.values()]
            variables = module.init(rngs_of(jax.random.key(seed)), *inputs, **keywords["eval"])
        model.take(variables)
        return model

    def take(self, variables: Any) -> None:
        """Take flax's nested variables, all or some collections."""
        parameters_first = sorted(variables, key=lambda collection: collection != PARAMS)
        for keys, value in [
            leaf
            for name in parameters_first
            for leaf in jax.tree_util.tree_flatten_with_path({name: variables[name]})[0]
        ]:
            path = tuple(str(getattr(key, "key", getattr(key, "name", key))) for key in keys)
            name = ".".join(path[1:])
            if self.places.get(name, path) != path:
                name = ".".join(path)
            self.places[name] = path
            self.variables[name] = value

    def nested(self, variables: Mapping[str, Any], below: Path = ()) -> dict[str, Any]:
        """Flax's nested variables of the module at a path; the model itself: the empty path."""
        result: dict[str, Any] = {}
        for name, value in variables.items():
            collection, *path = self.places[name]
            if tuple(path[: len(below)]) != below:
                continue
            inner = result.setdefault(collection, {})
            for key in path[len(below) : -1]:
                inner = inner.setdefault(key, {})
            inner[path[-1]] = value
        return result

    def names_of(self, path: Path, whole: bool) -> list[str]:
        """Names of a module's own variables; `whole`: also those of the modules in it."""
        return [
            name
            for name, (_, *keys) in self.places.items()
            if tuple(keys[: len(path)]) == path and (whole or len(keys) == len(path) + 1)
        ]

    def is_parameter(self, name: str) -> bool:
        """Whether a variable is trained."""
        return self.places[name][0] == PARAMS

    def apply(
        self, variables: Mapping[str, Any], inputs: Any, key: Any
    ) -> tuple[Any, dict[str, Any]]:
        """The model's output, and flax's nested variables that changed."""
        words = self.keywords["train" if self.training else "eval"]
        nested = self.nested(variables)
        mutable = [name for name in nested if name != PARAMS] if self.training else []
        output, changed = self.module.apply(
            nested, *inputs, **words, rngs=rngs_of(key), mutable=mutable
        )
        return output, changed


def mode_keywords(module: nn.Module) -> dict[str, dict[str, bool]]:
    """The keyword arguments of evaluation and training that a module's call has by their names."""
    names = inspect.signature(type(module).__call__).parameters
    training = {name: value for name, value in MODE_KEYWORDS.items() if name in names}
    return {"eval": {name: not value for name, value in training.items()}, "train": training}


def rngs_of(key: Any) -> dict[str, Any]:
    """Keys of random streams; a stream of another name falls back to `params`."""
    return {PARAMS: jax.random.fold_in(key, 0), "dropout": jax.random.fold_in(key, 1)}
