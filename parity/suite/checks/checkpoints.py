"""Loading: a backend's parameters after each kind of checkpoint, against the file's."""

import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from parity.cases.case import params_of
from parity.cases.golden import FOLDER
from parity.cases.golden import MODEL as GOLDEN_MODEL
from parity.comparison.sketch import Array
from parity.suite.checks.bits import crc, same
from parity.suite.checks.case import changed
from transfg_core.backend import Arrays, Backend, load_backend
from transfg_core.checkpoints import file as checkpoint
from transfg_core.checkpoints.authors import to_canonical
from transfg_core.checkpoints.pretrained import build_params
from transfg_core.config.sections import Config

# kind of checkpoint -> the model that loads it, and the golden file with the expected parameters
GOOGLE = {
    "google": ({"stride": 8}, "loaded_non-overlap_32"),  # 4 x 4 positions, as in the file
    "google resized": ({"stride": 6}, "loaded_overlap_62"),  # to 5 x 5
}
GOOGLE_NEAR = 1e-6  # tolerance: another release of SciPy resized the golden values


def loading(backend: Backend, config: Config, published: str | None, run: str) -> Arrays:
    """Every parameter after loading each kind of checkpoint, and whether it is the expected one."""
    taps: dict[str, Any] = {}
    model = config.model.model_dump(mode="json")
    shape = model | GOLDEN_MODEL | {"placement": "transfg", "pretrained_head": False}
    jobs: dict[str, tuple[dict[str, Any], str, Any]] = {}
    for kind, (sizes, golden) in GOOGLE.items():
        jobs[kind] = (shape | sizes, str(FOLDER / "tiny_vit.npz"), golden_params(golden))
    if published:
        jobs["published"] = (shape | {"stride": 8}, published, load_file(published))
    arrays, _ = checkpoint.load(Path(run))
    params = params_of(arrays)
    jobs["own run"] = (model, run, params)
    with TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.safetensors"
        checkpoint.save(plain, as_plain(params), {})
        jobs["plain"] = (model | {"part_layer_init": "last_block"}, str(plain), params)
        for kind, (sizes, file, expected) in jobs.items():
            ours = kind in ("own run", "plain")
            crop = {} if ours else {"crop": [32, 32], "resize": None}
            new = changed(config, model=sizes | {"pretrained": file}, data=crop)
            loaded = load(backend.name, new)
            taps |= {f"{kind}/{name}": value for name, value in loaded.items()}
            taps[f"{kind}/crc"] = crc(loaded)
            taps[f"{kind}/as the file says"] = agrees(loaded, expected, kind in GOOGLE)
    return taps | {"state/comes back": comes_back(backend, config)}


def as_plain(params: Mapping[str, Array]) -> Arrays:
    """TransFG's parameters, named as in a plain Vision Transformer with as many layers."""
    blocks = {name.split(".")[1] for name in params if name.startswith("blocks.")}
    plain: Arrays = {}
    for name, value in params.items():
        name = re.sub(r"^part_layer\.", f"blocks.{len(blocks)}.", name)
        plain[re.sub(r"^part_norm\.", "norm.", name)] = value
    return plain


def load(name: str, config: Config) -> Arrays:
    """A backend's parameters after it loaded `model.pretrained` as training does."""
    params, _ = build_params(config)
    backend = load_backend(name, config)
    backend.load_params(params)
    return params_of(backend.state())


def golden_params(name: str) -> Arrays:
    """Parameters that the published program makes of Google's file, without the random ones."""
    with np.load(FOLDER / f"{name}.npz") as stored:
        return {to_canonical(key): stored[key] for key in stored.files}


def agrees(loaded: Mapping[str, Array], expected: Mapping[str, Array], near: bool) -> bool:
    """Whether the expected parameters were loaded.

    With `near` they agree within GOOGLE_NEAR, and there may be more; else all agree to the bit.
    """
    if not near:
        return same(loaded, expected)
    return expected.keys() <= loaded.keys() and all(
        loaded[name].shape == value.shape and np.abs(loaded[name] - value).max() <= GOOGLE_NEAR
        for name, value in expected.items()
    )


def comes_back(backend: Backend, config: Config) -> bool:
    """Whether a fresh backend that loads a saved checkpoint has the same state."""
    state = backend.state()
    fresh = load_backend(backend.name, config)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "last.safetensors"
        checkpoint.save(path, state, {})
        fresh.load_state(checkpoint.load(path)[0])
    return same(fresh.state(), state)
