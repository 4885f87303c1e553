"""The same models as timm and torchvision have them, under this project's update.

`transfg bench --subject torch:timm` measures them. Loss, optimiser, clipping and precision are this
project's; forward and backward pass are the program's own. The backend takes this project's
parameters under the program's names. Both models then compute the same function, but for timm's
hybrids: timm adds 1e-8 to the variance of a kernel, and this project 1e-5 to its deviation.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from transfg_core.backend import FLOAT_TYPES, Array, Arrays
from transfg_core.checkpoints.programs import named_as, table_of
from transfg_core.config.sections import Config
from transfg_core.params.merge import refuse
from transfg_torch import runtime
from transfg_torch.backend import TorchBackend
from transfg_torch.models.output import Output
from transfg_torch.models.taps import Tap, no_tap
from transfg_torch.optim import make_optimizer
from transfg_torch.peers.makers import MAKERS
from transfg_torch.pixels import Normalise

# (program, model.name) -> the classifier's module
CLASSIFIERS = {
    ("timm", "vit"): "head",
    ("timm", "resnet"): "fc",
    ("timm", "swin"): "head.fc",
    ("torchvision", "vit"): "heads.head",
    ("torchvision", "resnet"): "fc",
    ("torchvision", "swin"): "head",
}
# Buffers that the programs compute or count themselves.
OWN_BUFFERS = r"\.(num_batches_tracked|relative_position_index|attn_mask)$"


class Peer(nn.Module):
    """A program's model that also returns the inputs of its classifier."""

    grad_checkpointing = False

    def __init__(self, body: nn.Module, classifier: str) -> None:
        super().__init__()
        self.place = classifier
        self.classifier = body.get_submodule(classifier)
        parent, _, leaf = classifier.rpartition(".")
        setattr(body.get_submodule(parent), leaf, nn.Identity())
        self.body = body

    def forward(self, images: Tensor, tap: Tap = no_tap) -> Output:
        """(B, 3, H, W) -> Output, without taps."""
        features = self.body(images)
        return Output(self.classifier(features), features)

    def own_name(self, name: str) -> str:
        """The name in this module of a parameter of the program's model."""
        inside = f"{self.place}."
        if name.startswith(inside):
            return f"classifier.{name.removeprefix(inside)}"
        return f"body.{name}"


class PeerBackend(TorchBackend):
    """The update and the evaluation of `TorchBackend` with a program's model.

    It takes canonical parameters (`load_params`) but has no state and no taps, because the
    parameters are not this project's.
    """

    def __init__(self, program: str, config: Config) -> None:
        self.program, self.config = program, config
        self.choices: frozenset[str] = frozenset()
        self.float_type = FLOAT_TYPES[config.run.precision]
        runtime.set_precision(config.run.precision)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.float64 if config.run.precision == "float64" else torch.float32
        table_of(program, config.model)
        body = MAKERS[config.model.name](program, config.model, config.data.crop)
        self.model = Peer(body, CLASSIFIERS[program, config.model.name]).to(self.device, dtype)
        self.normalise = Normalise(config).to(self.device)
        if config.run.grad_checkpointing:
            self.model.body.set_grad_checkpointing()
        self.trained = dict(self.model.named_parameters())
        self.params = dict(self.model.state_dict(keep_vars=True))
        # the program's update of its running statistics is not taken back
        self.statistics: list[str] = []
        self.reset_optimizer()

    def reset_optimizer(self) -> None:
        """A new optimiser with one group of all parameters, without averages."""
        groups = dict.fromkeys(self.trained, (1.0, self.config.optim.weight_decay))
        self.optimizer = make_optimizer(self.trained, groups, self.config.optim)
        self.updates = 0
        self.averages = {}

    def load_params(self, arrays: Mapping[str, Array]) -> None:
        """Take canonical parameters; every parameter of the program's model is set.

        Raises:
            UserError: the program's names or shapes are others than this project expects.
        """
        named = named_as(self.program, arrays, self.config.model)
        tensors = {self.model.own_name(n): self.to_tensor(value) for n, value in named.items()}
        problems = [
            f"{name}: expected {tuple(self.params[name].shape)}, found {tuple(value.shape)}"
            for name, value in tensors.items()
            if name in self.params and self.params[name].shape != value.shape
        ]
        absent = [name for name in self.params if name not in tensors]
        problems += [f"{n}: unset" for n in absent if not re.search(OWN_BUFFERS, n)]
        problems += [f"{n}: unknown to {self.program}" for n in tensors if n not in self.params]
        refuse(f"{self.program}: its version has other parameters", problems)
        self.model.load_state_dict(tensors, strict=False)
        self.reset_optimizer()

    def state(self) -> Arrays:
        """Not there: the parameters are not this project's."""
        raise NotImplementedError


def peer_backend(program: str, config: Config) -> PeerBackend:
    """The program's model of a configuration.

    Raises:
        UserError: the program is missing, lacks the model or one of its settings.
    """
    model, run, optim = config.model, config.run, config.optim
    wanted: list[tuple[str, Any, Any]] = [
        # programs place dropout in different layers
        ("model.dropout", model.dropout, 0.0),
        ("model.drop_path", getattr(model, "drop_path", 0.0), 0.0),
        ("run.compile", run.compile, False),
        ("optim.frozen", optim.frozen, ()),
        ("optim.ema", optim.ema, None),
        ("optim.groups", optim.groups, ()),
        ("optim.layer_decay", optim.layer_decay, 1.0),
    ]
    if program == "torchvision":  # which has no such setting
        wanted.append(("run.grad_checkpointing", run.grad_checkpointing, False))
    problems = [
        f"{key}: expected {expected!r} in a comparison, found {found!r}"
        for key, found, expected in wanted
        if found != expected
    ]
    refuse(f"{program}: settings that it does not share", problems)
    return PeerBackend(program, config)
