"""A backend in NumPy, small enough to predict: a linear classifier on each image's mean.

It takes the model's canonical parameters and trains `head.bias` and `head.weight`'s first column
by SGD with momentum. Its "dropout" is noise drawn from (seed, update), as the twins draw theirs.
"""

import numpy as np

from transfg_core.data.transforms import normalise
from transfg_core.models.layout import param_shapes
from transfg_core.params.merge import strict_merge

TRAINED = ("head.bias", "head.weight")


class FakeBackend:
    """Implements `transfg_core.backend.Backend`, and keeps what it was asked to do."""

    name = "fake"

    def __init__(self, config, at_update=None):
        """`at_update(k)` is called before update k."""
        self.config = config
        self.at_update = at_update or (lambda update: None)
        self.updates = 0
        self.steps = []  # (labels of each micro-batch, bytes of the images, lr)
        self.fetched = []

    def param_shapes(self):
        return param_shapes(self.config.model, self.config.data.crop)

    def load_params(self, arrays):
        self.params = strict_merge(self.param_shapes(), arrays, "load_params")
        self.slots = {name: np.zeros_like(value) for name, value in self.params.items()}
        averaged = self.params if self.config.optim.ema is not None else {}
        self.averages = {name: value.copy() for name, value in averaged.items()}
        self.updates = 0

    def state(self):
        state = {f"param/{name}": value.copy() for name, value in self.params.items()}
        state |= {f"momentum/{name}": value.copy() for name, value in self.slots.items()}
        state |= {f"ema/{name}": value.copy() for name, value in self.averages.items()}
        return state | {"optim/updates": np.array(self.updates)}

    def load_state(self, arrays):
        names = self.param_shapes()
        self.load_params(
            {name: arrays[f"param/{name}"] for name in names if f"param/{name}" in arrays}
        )
        self.slots = {name: arrays[f"momentum/{name}"].copy() for name in names}
        self.averages = {name: arrays[f"ema/{name}"].copy() for name in self.averages}
        self.updates = int(arrays["optim/updates"])

    def normalised(self, images):
        return normalise(images, self.config.data) if images.dtype == np.uint8 else images

    def logits(self, images, params=None):
        """Of these parameters; by default those that evaluations use."""
        params = params or self.params | self.averages
        mean = self.normalised(images).mean(axis=(1, 2, 3))
        return params["head.bias"] + mean[:, None] * params["head.weight"][:, 0]

    def train_step(self, micro_batches, lr):
        update = self.updates + 1
        self.at_update(update)
        self.updates = update
        images = b"".join(batch.images.tobytes() for batch in micro_batches)
        self.steps.append(([batch.labels.tolist() for batch in micro_batches], images, lr))
        noise = np.random.default_rng([self.config.run.seed, self.updates]).normal(size=3)
        losses, gradient = [], 0
        for batch in micro_batches:
            logits = self.logits(batch.images, self.params)
            hard = np.eye(logits.shape[1])[batch.labels]
            targets = hard if batch.targets is None else batch.targets
            share = np.exp(logits - logits.max(axis=1, keepdims=True))
            share /= share.sum(axis=1, keepdims=True)
            losses.append(-(targets * np.log(share)).sum(axis=1).mean())
            share -= targets
            gradient = gradient + share.mean(axis=0) / len(micro_batches)
        for name in TRAINED:
            slot = self.slots[name]
            slot *= np.float32(self.config.optim.momentum)
            slot += (gradient + 0.01 * noise[0]).reshape(-1, *[1] * (slot.ndim - 1))
            self.params[name] -= np.float32(lr) * slot
        for name, average in self.averages.items():
            average += np.float32(0.1) * (self.params[name] - average)
        loss = float(np.mean(losses))
        names = ("loss", "cross_entropy", "contrastive", "accuracy", "grad_norm")
        return {"update": self.updates} | dict.fromkeys(names, loss)

    def eval_step(self, images):
        logits = self.logits(images).astype(np.float32)
        features = self.normalised(images).mean(axis=(2, 3)).astype(np.float32)
        return {"logits": logits, "features": features}

    def fetch(self, handle):
        handle = dict(handle)
        self.fetched.append(handle.pop("update", "eval"))
        return {name: np.asarray(value) for name, value in handle.items()}

    def device_info(self):
        return {"backend": self.name, "device": "none", "peak_memory_bytes": 1}
