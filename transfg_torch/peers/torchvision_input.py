"""torchvision's way to read images: its transforms on Pillow images, and PyTorch's DataLoader.

Each file is read as `torchvision.datasets.ImageFolder` reads it.
"""

import importlib
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from transfg_core.config.sections import NORMALISATION, DataConfig
from transfg_core.data.datasets.samples import Samples
from transfg_core.errors import UserError
from transfg_core.machine import install_command

# Keys of DataConfig that the pipeline below follows; others must have their defaults.
FOLLOWED = {
    "resize", "crop", "random_resized_crop", "flip", "auto_augment", "rotation", "normalise",
}  # fmt: skip
# Keys that change nothing in the pixels of readable images.
WITHOUT_EFFECT = {
    "name", "root", "split", "level", "label", "unpacked", "banner", "folds", "fold", "validation",
    "group", "max_megapixels", "on_bad_image", "threads", "workers", "cache", "toy",
}  # fmt: skip


class Files(Dataset):
    """Image files and their labels, as ImageFolder gives them."""

    def __init__(self, samples: Samples, transform: Any) -> None:
        self.paths, self.labels = list(samples.paths), samples.labels.tolist()
        self.transform = transform
        self.load = torchvision().datasets.folder.default_loader

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.load(self.paths[index])), self.labels[index]


def torchvision() -> ModuleType:
    """The package.

    Raises:
        UserError: it is not installed, or does not fit PyTorch.
    """
    try:
        importlib.import_module("torchvision.transforms")
        return importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        raise UserError(
            f"torchvision: expected an installed version that fits PyTorch {torch.__version__}, "
            f"found none ({error}); install it: {install_command('bench')}"
        ) from error


def make_transform(data: DataConfig) -> Any:
    """The training transform of `data` in torchvision's names.

    Raises:
        UserError: a setting has no counterpart here.
    """
    own = FOLLOWED | WITHOUT_EFFECT
    other = data.model_dump(exclude=own)
    changed = [k for k, v in DataConfig().model_dump(exclude=own).items() if other[k] != v]
    if changed:
        raise UserError(
            f"data.{changed[0]}: expected the default in a comparison with torchvision, found "
            f"{other[changed[0]]!r}; leave it out"
        )
    module = torchvision().transforms
    steps: list[Any] = []
    if data.random_resized_crop is not None:
        steps.append(module.RandomResizedCrop(data.crop, data.random_resized_crop))
    else:
        steps += [module.Resize(data.resize)] if data.resize is not None else []
        steps.append(module.RandomCrop(data.crop))
    steps += [module.RandomHorizontalFlip()] if data.flip else []
    steps += [module.AutoAugment()] if data.auto_augment else []
    steps += [module.RandomRotation(data.rotation)] if data.rotation else []
    mean, deviation = NORMALISATION[data.normalise]
    return module.Compose([*steps, module.ToTensor(), module.Normalize(mean, deviation)])


def batches(samples: Samples, data: DataConfig, size: int) -> Iterator[Sequence[Tensor]]:
    """Endless shuffled batches: images (B, 3, H, W) float32 and labels (B,)."""
    torch.set_num_threads(1)  # as DataLoader sets it in its workers
    loader: Any = DataLoader(
        Files(samples, make_transform(data)),
        batch_size=size,
        shuffle=True,
        drop_last=True,
        num_workers=data.workers,
        persistent_workers=data.workers > 0,
    )
    while True:
        yield from loader
