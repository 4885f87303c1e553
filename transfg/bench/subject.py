"""Subjects of a measurement: a backend, a method and settings.

parse_subject("torch")                                  # TransFG in PyTorch
parse_subject("torch:published")                        # as the published program computes it
parse_subject("torch:timm")                             # the same model as timm has it
parse_subject("jittor:vit train.accumulation=2")        # with settings of its own
parse_subject("loader data.cache=FOLDER")               # a reader, for `--work input`
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transfg_core.backend import BACKENDS
from transfg_core.config.loading import load_config
from transfg_core.config.sections import Config
from transfg_core.config.vit import VitConfig
from transfg_core.data.datasets import read_dataset
from transfg_core.errors import UserError
from transfg_core.models.vit import require_vit

METHODS = ("transfg", "vit", "published", "real-input")
PEERS = ("timm", "torchvision")  # methods of the PyTorch backend: the same model, from a package
# What reads images for `--work input`, and the form of its batches.
READERS = {"loader": ("float32", "uint8"), "torchvision": ("float32",)}
WORK = ("train", "infer", "attention", "selection", "input")
# of the published program, which `published` computes like
PUBLISHED = {"placement": "transfg", "selection": "fused", "fusion": "matmul"}
CLASSES = 200  # if the configuration takes them from the data set
OURS = ("train.batch_size", "train.eval_batch_size", "model.pretrained")  # keys that the bench sets


@dataclass(frozen=True)
class Subject:
    """A backend and a method of METHODS, or a reader and a form; and settings of its own."""

    label: str
    backend: str
    method: str
    overrides: tuple[str, ...] = ()

    @property
    def reads(self) -> bool:
        """Whether it reads its images from the data set."""
        return self.method == "real-input" or self.backend in READERS

    def config(self, path: Path, overrides: Sequence[str], batch: int) -> Config:
        """The configuration, with random weights: speed does not depend on their values.

        Raises:
            UserError: a file, key or value is wrong.
        """
        given = load_config(path, [*overrides, *self.overrides])
        classes = given.model.classes or CLASSES
        if self.method == "real-input":  # the labels of the data set must fit the head
            classes = len(read_dataset(given.data, given.run.seed).classes)
        ours = [f"train.batch_size={batch}", f"train.eval_batch_size={batch}"]
        ours += [f"model.classes={classes}", "model.pretrained=null"]
        # a peer has no part selection
        if self.method == "vit" or (self.method in PEERS and isinstance(given.model, VitConfig)):
            ours.append("model.placement=none")
        config = load_config(path, [*overrides, *self.overrides, *ours])
        if self.method == "published":
            model = require_vit(config.model, self.label)
            for key, expected in PUBLISHED.items():
                if getattr(model, key) != expected:
                    raise UserError(
                        f"{self.label}: expected model.{key} {expected}, as in the published "
                        f"program, found {getattr(model, key)}"
                    )
        return config


def parse_subject(text: str) -> Subject:
    """Parse a subject from `BACKEND[:METHOD] [KEY=VALUE]...`.

    Raises:
        UserError: the backend or method is unknown, or a key is one that the bench sets.
    """
    name, *overrides = text.split() or [""]
    backend, _, method = name.partition(":")
    for override in overrides:
        if override.partition("=")[0] in OURS:
            raise UserError(
                f"--subject {text}: {override}: the bench sets this key: weights are random, and "
                "--batch sets the number of images; leave it out"
            )
    known = METHODS + PEERS if backend == "torch" else METHODS
    methods = READERS.get(backend, known if backend in BACKENDS else ())
    if method and method not in methods or not methods:
        raise UserError(
            f"--subject {text}: expected BACKEND[:METHOD] [KEY=VALUE]..., backends "
            f"{', '.join(BACKENDS)}, methods {', '.join(METHODS)}, with torch also "
            f"{', '.join(PEERS)}; with --work input loader, loader:uint8 or torchvision"
        )
    return Subject(text, backend, method or methods[0], tuple(overrides))
