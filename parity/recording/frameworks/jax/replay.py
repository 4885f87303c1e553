"""A recorded pass of flax modules that can be computed again as a function: JAX's way to gradients.

JAX differentiates functions, and the recorder asks for gradients of arrays by arrays. `Run` knows
where each array came from: a variable, an input, or the output of a module. Its pass is computed
again with those as arguments; an output gets an argument of zeros added, so that the gradient by
this argument is the gradient by the output. Nothing of the user's code changes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from parity.recording.adapter import AroundModule
from parity.recording.structure import leaves, rebuild

Key = tuple[Any, ...]  # ("variable", name), ("input", number) or ("output", path, call, place)
Function = Callable[..., Any]


def is_array(value: Any) -> bool:
    """Whether a value is an array of JAX, concrete or traced."""
    return isinstance(value, jax.Array)


def is_traced(value: Any) -> bool:
    """Whether any array in a structure is traced: inside jit, scan, checkpoint or vmap."""
    return any(isinstance(leaf, jax.core.Tracer) for _, leaf in leaves(value, is_array))


@dataclass
class Run:
    """One pass. `compute(variables, inputs)` -> the structure of its outputs."""

    compute: Callable[[Mapping[str, Any], Sequence[Any]], Any]
    variables: Mapping[str, Any]
    inputs: Sequence[Any]
    keys: dict[int, Key] = field(default_factory=dict)  # id of an array -> where it came from
    kept: list[Any] = field(default_factory=list)  # those arrays, so that ids stay theirs
    outputs: dict[int, str] = field(default_factory=dict)  # id -> place in the output
    branches: dict[Key, Function] = field(default_factory=dict)  # call of a kinked function -> how
    counts: dict[Key, int] = field(default_factory=dict)
    # id of a loss -> itself, the function of the outputs that computes it, and these outputs
    losses: dict[int, tuple[Any, Function, list[Any]]] = field(default_factory=dict)
    deltas: Mapping[Key, Any] | None = None  # while the pass is computed again

    def __post_init__(self) -> None:
        for name, value in self.variables.items():
            self.know(value, ("variable", name))
        for number, value in enumerate(self.inputs):
            self.know(value, ("input", number))

    def know(self, value: Any, key: Key) -> None:
        """Remember where an array came from."""
        self.keys[id(value)] = key
        self.kept.append(value)

    def next_call(self, *key: Any) -> Key:
        """The key with the number of this call."""
        self.counts[key] = self.counts.get(key, 0) + 1
        return (*key, self.counts[key])

    def first(self) -> Any:
        """Compute the pass for the recorder."""
        output = self.compute(self.variables, self.inputs)
        for place, leaf in leaves(output, is_array):
            self.outputs[id(leaf)] = place
            self.kept.append(leaf)
        return output

    def module_output(self, call: Key, args: Any, output: Any) -> Any:
        """The output of a module's call: first remembered, later moved by the arguments."""
        if self.deltas is not None:
            places = iter(leaves(output, is_array))
            deltas = self.deltas
            return rebuild(
                output, is_array, lambda leaf: _moved(leaf, deltas, (*call, next(places)[0]))
            )
        given = {id(leaf) for _, leaf in leaves(args, is_array)}
        # A module that returns its input (dropout when it is off) gets an output of its own.
        output = rebuild(
            output, is_array, lambda leaf: jnp.array(leaf) if id(leaf) in given else leaf
        )
        for place, leaf in leaves(output, is_array):
            self.know(leaf, (*call, place))
        return output

    def again(self, values: Mapping[Key, Any]) -> dict[str, Any]:
        """The outputs by place, with other variables and inputs, and outputs moved by `values`."""
        variables = {n: values.get(("variable", n), v) for n, v in self.variables.items()}
        inputs = [values.get(("input", n), v) for n, v in enumerate(self.inputs)]
        self.counts, self.deltas = {}, values
        try:
            return dict(leaves(self.compute(variables, inputs), is_array))
        finally:
            self.deltas = None

    def gradients(
        self,
        outputs: Sequence[Any],
        wrt: Sequence[Any],
        cotangents: Sequence[Any] | None,
    ) -> list[Any]:
        """Gradients of sum(output * cotangent) by arrays of the pass; None: the array is not of it.

        Args:
            outputs: one loss, or outputs of the pass.
        """
        keys = [self.keys.get(id(native)) for native in wrt]
        starts = {
            key: jnp.zeros_like(native) if key[0] == "output" else native
            for key, native in zip(keys, wrt, strict=True)
            if key is not None
        }
        loss = self.losses.get(id(outputs[0]))
        places = [self.outputs[id(native)] for native in (loss[2] if loss else outputs)]

        def ends(values: Mapping[Key, Any]) -> list[Any]:
            found = self.again(values)
            computed = [found[place] for place in places]
            return [loss[1](computed)] if loss else computed

        _, pull = jax.vjp(ends, starts)
        (found,) = pull(list(cotangents or [jnp.ones_like(native) for native in outputs]))
        return [None if key is None else found[key] for key in keys]


def _moved(leaf: Any, deltas: Mapping[Key, Any], key: Key) -> Any:
    return leaf + deltas[key] if key in deltas else leaf


@contextmanager
def intercepted(
    run_of: Callable[[], Run | None],
    around: AroundModule,
    seen: Callable[[tuple[str, ...], Any], None],
    silent: Callable[[Any], bool],
) -> Iterator[None]:
    """Within: calls of flax modules of the current run go through `around`, or through the run.

    Args:
        seen: gets the path and the module of each call.
        silent: whether a module returns its first argument now (dropout that is off).
    """

    def intercept(
        call: Function, args: tuple[Any, ...], kwargs: dict[str, Any], context: Any
    ) -> Any:
        run = run_of()
        if run is None or context.method_name != "__call__":
            return call(*args, **kwargs)
        if silent(context.module):
            call = _first_argument
        path = context.module.path
        if run.deltas is None and is_traced((args, kwargs)):
            return call(*args, **kwargs)
        key = run.next_call("output", ".".join(path))

        def called(*args: Any, **kwargs: Any) -> Any:
            return run.module_output(key, (args, kwargs), call(*args, **kwargs))

        if run.deltas is not None:
            return called(*args, **kwargs)
        seen(path, context.module)
        return around(".".join(path), called, args, kwargs)

    with nn.intercept_methods(intercept):
        yield


def _first_argument(*args: Any, **kwargs: Any) -> Any:
    return args[0] if args else next(iter(kwargs.values()))
