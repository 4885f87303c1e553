"""The parts of a Jittor model: its state, its modules, and gradients that `eval()` stopped."""

from typing import Any

from parity.errors import ParityError

STATISTICS = ("running_mean", "running_var")


def variables_of(jittor: Any, model: Any, unsaved: bool = False) -> dict[str, Any]:
    """Name -> Var of the state, with the names and rules of `Module.state_dict`.

    Attributes that begin with `_` are none of it, nor are buffers that are not persistent, but
    with `unsaved`. A shared array has an entry under each of its names.
    """
    found = {}
    for path, module in model.named_modules():
        listed = isinstance(module, jittor.nn.ParameterList)
        for key, value in (module.params if listed else module.__dict__).items():
            hidden = isinstance(key, str) and key.startswith("_")
            if isinstance(value, jittor.Var) and not hidden:
                if unsaved or getattr(value, "persistent", True):
                    found[f"{path}.{key}" if path else str(key)] = value
    return found


def stopped_by_eval(model: Any) -> list[Any]:
    """Arrays whose gradient `eval()` stopped (__init__.py, `Module.eval`), until `train()`."""
    stopped: dict[int, Any] = {}
    for _, module in model.named_modules():
        before = module.__dict__.get("backup_grad_state", {})
        for var in module.parameters() if before else ():
            if before.get(id(var)) and var.is_stop_grad():
                stopped[id(var)] = var
    return list(stopped.values())


def is_buffer(name: str, var: Any) -> bool:
    """Whether an entry of the state is no parameter: statistics, whole numbers, or registered.

    An array of floats whose gradient is stopped stays a parameter: it may be frozen by accident.
    """
    last = name.rpartition(".")[2]
    return last in STATISTICS or not var.dtype.is_float() or hasattr(var, "persistent")


def children(module: Any) -> list[Any]:
    """The modules directly inside a module."""
    return [child for path, child in module.named_modules() if path and "." not in path]


def is_mask(module: Any) -> bool:
    """Whether a module is a random mask itself, and no block that has one, such as
    `ConvDropoutNorm`: that block has modules in it, or weights."""
    named = "drop" in type(module).__name__.lower()
    return named and not children(module) and not module.parameters()


def is_own(jittor: Any, module: Any, name: str) -> bool:
    """Whether a module overrides `train` or `eval`."""
    return getattr(type(module), name) is not getattr(jittor.Module, name)


def refuse_hidden(jittor: Any, model: Any) -> None:
    """Refuse modules that Jittor does not see, since they stand in a plain list or dict.

    Raises:
        ParityError: there is one; the text names it.
    """
    seen = {id(module) for _, module in model.named_modules()}
    for path, module in model.named_modules():
        for key, value in module.__dict__.items():
            values = value.values() if isinstance(value, dict) else value
            if key == "_conv" or not isinstance(values, (list, tuple, type({}.values()))):
                continue
            if any(isinstance(v, jittor.Module) and id(v) not in seen for v in values):
                raise ParityError(
                    f"jittor: {path or type(module).__name__}.{key} is a {type(value).__name__} of "
                    "modules, and Jittor sees no modules in it: their parameters are neither saved "
                    "nor trained; use jittor.nn.ModuleList"
                )
