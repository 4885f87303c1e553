"""Do a pair's inputs fit the arguments of a model? Inputs are passed by order."""

import inspect
from collections.abc import Sequence
from typing import Any

from parity.errors import ParityError

BY_ORDER = "inputs are passed by order"
BY_NAME = (
    "an argument that is passed by name needs a function in `build` (docs/parity.md, Two models)"
)


def check_arguments(function: Any, names: Sequence[str]) -> list[str]:
    """Compare the names of the inputs with a function's arguments; notes where names differ.

    Args:
        function: the model's bound method that gets the inputs; None if it is not known.
        names: the inputs, in the order of the pair.

    Raises:
        ParityError: there are too few or too many, or their order is not that of the arguments.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # not a function, or one without a signature
        return []
    given = ", ".join(names)
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    own = [p.name for p in signature.parameters.values() if p.kind in by_place]
    wanted = f"{function.__name__}({', '.join(own)})"
    try:
        signature.bind(*names)
    except TypeError as error:
        raise ParityError(
            f"expected one for each argument of {wanted}, found {len(names)}: {given}; {error}; "
            f"{BY_ORDER}; {BY_NAME}"
        ) from error
    pairs = [(n, a) for n, a in zip(names, own, strict=False) if n != a]
    moved = [f"`{n}` as `{a}`" for n, a in pairs if n in own]
    if moved:
        raise ParityError(
            f"expected the order of {wanted}, found {given}; {BY_ORDER}, so the model would get "
            f"{', '.join(moved)}; write the inputs of the pair in the order of the arguments; "
            f"{BY_NAME}"
        )
    return [f"{BY_ORDER}: " + ", ".join(f"{n} as {a}" for n, a in pairs)] if pairs else []
