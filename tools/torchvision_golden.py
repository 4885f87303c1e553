"""Golden values of torchvision's Pillow path, for tests that run without torchvision.

    pip install --target FOLDER --no-deps torchvision==0.28.0 pillow==13.0.0
    PYTHONPATH=FOLDER:.:tests python tools/torchvision_golden.py

writes tests/core/data/golden/torchvision.json. Its digests are of pixels that torchvision computed
from `picture()`, with Pillow 13 or later. Run it again with an older Pillow: it adds the pipelines
whose pixels that Pillow resizes in another way (differences of up to 3 of 255). torchvision takes
its random numbers from a NumPy generator here, in the order in which
`transfg_core/data/transforms.py` draws, so both transform with the same parameters.
"""

import json
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image
from torchvision_cases import (
    CUTS,
    FACTORS,
    GOLDEN,
    OLD_PILLOW,
    OPERATIONS,
    PIPELINES,
    SEEDS,
    SIZE,
    TURNS,
    batch,
    digest,
    picture,
)

from transfg_core.config.sections import NORMALISATION, DataConfig

VERSION = "0.28.0"
GREY = [128, 128, 128]

# magnitudes at level 0 and level 9
ENDS = {"ShearX": (0.0, 0.3), "Rotate": (0.0, 30.0), "Posterize": (8.0, 4.0)}
ENDS |= {"Solarize": (256.0, 0.0)} | dict.fromkeys(("Color", "Contrast", "Sharpness"), (0.0, 0.9))


class Draws:
    """PyTorch with the random numbers of a NumPy generator, for torchvision's classes."""

    def __init__(self, rng: np.random.Generator) -> None:
        import torch

        self.rng, self.torch = rng, torch

    def __getattr__(self, name: str) -> Any:
        return getattr(self.torch, name)

    def rand(self, *size: int) -> Any:
        return self.torch.tensor([self.rng.random()], dtype=self.torch.float64)

    def randint(self, low: int, high: int, size: Any) -> Any:
        return self.torch.tensor([int(self.rng.integers(low, high))])

    def randperm(self, count: int) -> Any:
        return self.torch.tensor(self.rng.permutation(count))

    def empty(self, size: int) -> Any:
        return mock.Mock(uniform_=self.uniform)

    def uniform(self, low: Any, high: Any) -> Any:
        value = self.rng.uniform(float(low), float(high))
        return self.torch.tensor([value], dtype=self.torch.float64)


def import_torchvision() -> Any:
    """Import torchvision, also where its compiled operators do not fit this PyTorch."""
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    with mock.patch("torch.library.register_fake", lambda *_, **__: lambda function: function):
        import torchvision
    assert torchvision.__version__.startswith(VERSION), torchvision.__version__
    import_torchvision.library = library  # type: ignore[attr-defined]  # lives as long as it
    return torchvision


def auto_augment(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """torchvision's policy and operations, with the draws and constants of this project."""
    from torchvision.transforms.autoaugment import AutoAugment

    policies = AutoAugment().policies
    for name, probability, level in policies[int(rng.integers(len(policies)))]:
        applied, negative = rng.random() < probability, rng.random() < 0.5
        if applied:
            image = operate(image, name, level or 0, negative)
    return image


def operate(image: Image.Image, name: str, level: int, negative: bool) -> Image.Image:
    """torchvision's operation at a level, with what the published program of TransFG does.

    That program shears with bicubic interpolation and fills with grey. For solarize it has the
    thresholds 256 to 0, where torchvision has 255 to 0. Its magnitudes have 64 bits, those of
    torchvision 32.
    """
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.autoaugment import _apply_op

    first, last = ENDS.get(name, (0.0, 0.0))
    magnitude = first + (last - first) * level / 9
    magnitude = round(magnitude) if name == "Posterize" else magnitude
    signed = magnitudes()[name][1]
    mode = InterpolationMode.BICUBIC if name == "ShearX" else InterpolationMode.NEAREST
    return _apply_op(image, name, -magnitude if signed and negative else magnitude, mode, GREY)


def magnitudes() -> dict[str, tuple[list[float], bool]]:
    """torchvision's table: name -> (the ten magnitudes, or one, and whether either sign)."""
    from torchvision.transforms.autoaugment import AutoAugment

    space = AutoAugment()._augmentation_space(10, SIZE)
    return {n: (np.atleast_1d(v.numpy()).tolist(), s) for n, (v, s) in space.items()}


def train_steps(data: Any, rng: np.random.Generator) -> list[Callable[[Any], Any]]:
    """The transforms of torchvision that the settings of `data` name, in this project's order."""
    from torchvision import transforms as T
    from torchvision.transforms import InterpolationMode

    mode, bilinear = InterpolationMode(data.interpolation), InterpolationMode.BILINEAR
    steps: list[Callable[[Any], Any]]
    if data.random_resized_crop:
        steps = [T.RandomResizedCrop(data.crop, data.random_resized_crop, interpolation=mode)]
    else:
        steps = [T.Resize(data.resize, mode), T.RandomCrop(data.crop)]
    if data.flip:
        steps.append(T.RandomHorizontalFlip())
    if data.auto_augment:
        steps.append(lambda image: auto_augment(image, rng))
    if data.color_jitter:
        steps.append(T.ColorJitter(*data.color_jitter))
    if data.grayscale:
        steps.append(T.RandomGrayscale(data.grayscale))
    if data.rotation:
        steps.append(T.RandomRotation(data.rotation, bilinear, fill=GREY))
    steps.append(T.PILToTensor())
    erasing = data.random_erasing
    if erasing.probability:
        mean = NORMALISATION[data.normalise][0]
        value = tuple(round(255 * m) for m in mean) if erasing.value == "mean" else 0
        steps.append(T.RandomErasing(erasing.probability, erasing.scale, erasing.aspect, value))
    return steps


def pipelines() -> dict[str, Any]:
    """Per pipeline: digests of the training pixels by seed, of evaluation, and normalised."""
    from torchvision import transforms as T
    from torchvision.transforms import InterpolationMode

    results = {}
    for name, settings in PIPELINES.items():
        data = DataConfig(**settings)
        pixels = []
        for seed in SEEDS:
            rng = np.random.default_rng(seed)
            with mock.patch("torchvision.transforms.transforms.torch", Draws(rng)):
                image = T.Compose(train_steps(data, rng))(picture())
            pixels.append(image)
        resize = T.Resize(data.resize, InterpolationMode(data.interpolation))
        evaluated = T.Compose([resize, T.CenterCrop(data.crop)])(picture())
        mean, std = NORMALISATION[data.normalise]
        normal = T.Normalize(mean, std)(T.ToTensor()(evaluated))
        results[name] = {
            "train": [digest(image.permute(1, 2, 0).numpy()) for image in pixels],
            "eval": digest(evaluated),
            "normalised": digest(normal.numpy()),
        }
    return results


def operations() -> dict[str, Any]:
    """Digests by operation, level and sign; and of the four adjustments by factor."""
    from torchvision.transforms import functional as F

    image = picture()
    adjustments = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation)
    return {
        "autoaugment": {
            own: [[digest(operate(image, name, k, s)) for s in (False, True)] for k in range(10)]
            for own, name in OPERATIONS.items()
        },
        "adjustments": [
            *([digest(adjust(image, factor)) for factor in FACTORS] for adjust in adjustments),
            [digest(F.adjust_hue(image, turn)) for turn in TURNS],
        ],
        "grey": digest(F.rgb_to_grayscale(image, 3)),
    }


def mixing() -> dict[str, Any]:
    """Digests of images and targets that torchvision's MixUp and CutMix make of `batch()`."""
    import torch
    from torchvision.transforms import v2

    pixels, labels = batch()
    mean, std = (np.array(values, np.float32) for values in NORMALISATION["imagenet"])
    normal = ((pixels.astype(np.float32) / np.float32(255) - mean) / std).transpose(0, 3, 1, 2)
    images, y = torch.from_numpy(np.ascontiguousarray(normal)), torch.from_numpy(labels)
    results: dict[str, Any] = {"mixup": [], "cutmix": []}
    for share, row, column in CUTS:
        fixed = mock.Mock(sample=lambda _, share=share: share)
        up, cut = v2.MixUp(num_classes=4), v2.CutMix(num_classes=4)
        up._dist = cut._dist = fixed
        places = [torch.tensor([column]), torch.tensor([row])]
        with mock.patch("torch.randint", lambda *_, places=places, **__: places.pop(0)):
            mixed = {"mixup": up(images, y), "cutmix": cut(images, y)}
        for name, (x, targets) in mixed.items():
            results[name].append([digest(x.numpy()), digest(targets.numpy())])
    return results


def main() -> None:
    version = import_torchvision().__version__
    from torchvision.transforms.autoaugment import AutoAugment

    if OLD_PILLOW:
        golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
        common, found = golden["pipelines"], pipelines()
        golden["old_pillow"] = {name: found[name] for name in found if found[name] != common[name]}
    else:
        golden = {
            "torchvision": version,
            "policy": AutoAugment().policies,
            "magnitudes": {own: magnitudes()[name] for own, name in OPERATIONS.items()},
            "pipelines": pipelines(),
            **operations(),
            "mixing": mixing(),
        }
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")
    print(GOLDEN)


if __name__ == "__main__":
    main()
