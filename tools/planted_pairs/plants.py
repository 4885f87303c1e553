"""Ways to plant a fault in a built model: a setting, another forward pass, another module.

A `Plant` changes a model and returns it. `forward` leaves the module's settings and its class's
name as they are, as in a port that takes an option and ignores it: no manifest shows the fault.
"""

from collections.abc import Callable
from typing import Any

from torch import nn

Plant = Callable[[nn.Module], nn.Module]


def setting(path: str, **values: Any) -> Plant:
    """Attributes of a module get other values: the manifest shows them."""

    def plant(model: nn.Module) -> nn.Module:
        module = model.get_submodule(path)
        for name, value in values.items():
            assert hasattr(module, name), f"{path}.{name}"
            setattr(module, name, value)
        return model

    return plant


def forward(path: str, function: Callable[..., Any], name: str = "forward") -> Plant:
    """A method of a module is another function of (module, input): its settings do not show it."""

    def plant(model: nn.Module) -> nn.Module:
        module = model.get_submodule(path)
        known = type(module)
        assert hasattr(known, name), f"{path}: {name}"
        module.__class__ = type(known.__name__, (known,), {name: function})
        return model

    return plant


def other(path: str, make: Callable[[Any], nn.Module]) -> Plant:
    """Another module stands in the place of one."""

    def plant(model: nn.Module) -> nn.Module:
        model.set_submodule(path, make(model.get_submodule(path)))
        return model

    return plant


def both(*plants: Plant) -> Plant:
    """One after another."""

    def plant(model: nn.Module) -> nn.Module:
        for each in plants:
            model = each(model)
        return model

    return plant


def tied(path: str, name: str, source: str) -> Plant:
    """A parameter of one module is that of another."""

    def plant(model: nn.Module) -> nn.Module:
        setattr(model.get_submodule(path), name, model.get_parameter(source))
        return model

    return plant
