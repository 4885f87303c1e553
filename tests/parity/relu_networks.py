"""ReLU networks in NumPy with their gradients, in two orders of summation.

    network = Network(depth=4)
    taps, kinks = record(network, weights, x, order=-1)

The order of every sum is from the front (1) or from the back (-1): two right programs. `plant`
moves biases so that some inputs of a ReLU lie within rounding of zero, on either side of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from parity import ulp_variant
from parity.comparison.pools import Pool, pooled
from parity.comparison.sketch import Array
from parity.comparison.trace import Trace

POOL = Pool(2, 2, 0)
NEAR = 1e-3  # a choice is followed only this near a tie, relative to the root mean square


@dataclass(frozen=True)
class Network:
    """Layers x W + b, then batch norm, residual sum and ReLU; a max pool after the first."""

    depth: int = 3
    width: int = 32  # a multiple of 16: (width / 16, 4, 4) before the pool
    batch: int = 16
    norm: bool = False
    residual: bool = False
    pool: bool = False

    def sizes(self) -> list[tuple[int, int]]:
        """(in, out) of each layer; the last has four classes."""
        inside = self.width // 4 if self.pool else self.width
        widths = [self.width, self.width, *[inside] * (self.depth - 1)]
        pairs = [(widths[i], widths[i + 1]) for i in range(self.depth)]
        if self.pool and self.depth > 1:
            pairs[1] = (inside, inside)
        return [*pairs, (inside, 4)]

    def weights(self, rng: np.random.Generator) -> dict[str, Array]:
        """He-normal matrices, small biases, norms that differ from 1 and 0; float32."""
        found: dict[str, Array] = {}
        for number, (before, after) in enumerate(self.sizes()):
            found[f"{number}.weight"] = rng.standard_normal((before, after)) * (2 / before) ** 0.5
            found[f"{number}.bias"] = 0.1 * rng.standard_normal(after)
            if self.norm and number < self.depth:
                found[f"{number}.norm.weight"] = rng.uniform(0.5, 1.5, after)
                found[f"{number}.norm.bias"] = 0.1 * rng.standard_normal(after)
        return {name: value.astype(np.float32) for name, value in found.items()}


def product(a: Array, b: Array, order: int) -> Array:
    """a @ b; each sum in this order."""
    if order > 0:
        return a @ b
    return np.ascontiguousarray(a[:, ::-1]) @ np.ascontiguousarray(b[::-1])


def total(x: Array, order: int) -> Array:
    """The sum over the first axis in this order."""
    return x[::order].sum(axis=0)


@dataclass
class Pass:
    """One pass and what it needs to go back; `handed`: choices to follow near ties."""

    network: Network
    weights: Mapping[str, Array]
    order: int
    handed: Mapping[str, Array] | None = None
    taps: dict[str, Array] = field(default_factory=dict)
    choices: dict[str, Array] = field(default_factory=dict)
    used: dict[str, Array] = field(default_factory=dict)

    def choose(self, name: str, x: Array, own: Array, gap: Any) -> Array:
        """The choice to compute with: the own one, or near a tie the one handed over."""
        self.choices[name] = own
        other = own if self.handed is None else self.handed[name]
        near = gap(other) <= NEAR * np.sqrt(np.square(x).mean())
        self.used[name] = np.where(near, other, own)
        return self.used[name]

    def relu(self, name: str, x: Array) -> Array:
        own = (x > 0).astype(np.uint8)
        return x * self.choose(name, x, own, lambda _other: np.abs(x)).astype(x.dtype)

    def max_pool(self, name: str, maps: Array) -> Array:
        """(N, C, 4, 4) -> (N, C, 2, 2)."""
        own = pooled(maps, POOL)[1]
        flat = maps.reshape(*maps.shape[:2], 16)

        def values(index: Array) -> Array:
            return np.take_along_axis(flat, index.reshape(*flat.shape[:2], 4), 2).reshape(own.shape)

        return values(self.choose(name, maps, own, lambda other: values(own) - values(other)))

    def forward(self, x: Array) -> Array:
        net, w, taps = self.network, self.weights, self.taps
        for i in range(net.depth):
            before = x
            x = taps[f"{i}.linear"] = product(x, w[f"{i}.weight"], self.order) + w[f"{i}.bias"]
            if net.norm:
                centred = x - total(x, self.order) / x.dtype.type(len(x))
                variance = total(centred * centred, self.order) / x.dtype.type(len(x))
                scale = 1 / np.sqrt(variance + x.dtype.type(1e-5))
                taps[f"{i}.scaled"], taps[f"{i}.scale"] = centred * scale, scale
                x = taps[f"{i}.scaled"] * w[f"{i}.norm.weight"] + w[f"{i}.norm.bias"]
                taps[f"{i}.norm"] = x
            if net.residual and before.shape == x.shape:
                x = taps[f"{i}.sum"] = x + before
            x = taps[f"{i}.relu"] = self.relu(f"{i}.relu", x)
            if net.pool and i == 0:
                taps[f"{i}.maps"] = x.reshape(len(x), -1, 4, 4)
                taps[f"{i}.pool"] = self.max_pool(f"{i}.pool", taps[f"{i}.maps"])
                x = taps[f"{i}.pool"].reshape(len(x), -1)
        last = net.depth
        taps["logits"] = product(x, w[f"{last}.weight"], self.order) + w[f"{last}.bias"]
        return taps["logits"]

    def backward(self, x: Array, d: Array) -> dict[str, Array]:
        """Gradients by every parameter."""
        net, w, taps, order = self.network, self.weights, self.taps, self.order
        gradients: dict[str, Array] = {}
        for i in range(net.depth, -1, -1):
            before = x if i == 0 else taps.get(f"{i - 1}.pool", taps[f"{i - 1}.relu"])
            before = before.reshape(len(x), -1)
            skip = None
            if i < net.depth:
                if f"{i}.pool" in taps:
                    index = self.used[f"{i}.pool"].reshape(len(x), -1, 4)
                    wide = np.zeros((len(x), index.shape[1], 16), d.dtype)
                    np.put_along_axis(wide, index, d.reshape(index.shape), 2)
                    d = wide.reshape(len(x), -1)
                d = d * self.used[f"{i}.relu"].astype(d.dtype)
                skip = d if f"{i}.sum" in taps else None
                if net.norm:
                    d = self._norm_backward(i, d, gradients)
            gradients[f"{i}.weight"] = product(np.ascontiguousarray(before.T), d, order)
            gradients[f"{i}.bias"] = total(d, order)
            d = product(d, np.ascontiguousarray(w[f"{i}.weight"].T), order)
            d = d if skip is None else d + skip
        return gradients

    def _norm_backward(self, i: int, d: Array, gradients: dict[str, Array]) -> Array:
        scaled, count = self.taps[f"{i}.scaled"], d.dtype.type(len(d))
        gradients[f"{i}.norm.weight"] = total(d * scaled, self.order)
        gradients[f"{i}.norm.bias"] = total(d, self.order)
        d = d * self.weights[f"{i}.norm.weight"]
        mean, slope = total(d, self.order) / count, total(d * scaled, self.order) / count
        return self.taps[f"{i}.scale"] * (d - mean - scaled * slope)


def record(
    network: Network,
    weights: Mapping[str, Array],
    x: Array,
    order: int,
    handed: Mapping[str, Array] | None = None,
) -> Pass:
    """One pass forward and backward; the loss is half the mean of the squared logits."""
    done = Pass(network, weights, order, handed)
    logits = done.forward(x)
    gradients = done.backward(x, logits / logits.dtype.type(logits.size))
    taps = {
        f"forward/{n}": v for n, v in done.taps.items() if not n.endswith((".scaled", ".scale"))
    }
    done.taps = taps | {f"gradients/{n}": gradients[n] for n in weights}
    return done


def plant(network: Network, weights: dict[str, Array], x: Array, ties: int, seed: int) -> None:
    """Move biases so that in some layers one input of the ReLU is zero within rounding."""
    rng = np.random.default_rng(seed)
    for layer in sorted(rng.choice(network.depth, min(ties, network.depth), replace=False)):
        passes = [Pass(network, weights, order) for order in (1, -1)]
        for each in passes:
            each.forward(x)
        names = [f"{layer}.{word}" for word in ("sum", "norm", "linear")]
        name = next(name for name in names if name in passes[0].taps)
        front, back = (each.taps[name] for each in passes)
        row, unit = np.unravel_index(int(np.abs(front - back).argmax()), front.shape)
        middle = (front[row, unit].astype("f8") + back[row, unit]) / 2
        bias = f"{layer}.norm.bias" if network.norm else f"{layer}.bias"
        weights[bias][unit] = weights[bias][unit].astype("f8") - middle


def kinks_of(network: Network) -> dict[str, dict[str, Any]]:
    """The kinks of a manifest."""
    found: dict[str, dict[str, Any]] = {}
    for i, (before, after) in enumerate(network.sizes()[:-1]):
        added = network.residual and before == after
        word = "sum" if added else "norm" if network.norm else "linear"
        facts = {"kind": "relu", "input": f"forward/{i}.{word}", "corners": [0.0], "settings": {}}
        found[f"choices/{i}.relu"] = facts
    if network.pool:
        facts = {"kind": "max pool", "input": "forward/0.maps", "corners": []}
        found["choices/0.pool"] = facts | {"settings": {"axes": [{}, {}]}}
    return found


def traces(
    network: Network,
    seed: int,
    ties: int = 2,
    followed: bool = False,
    variants: int = 3,
    fault: Any = None,
) -> list[Trace]:
    """All recordings of a pair, as `compare` takes them.

    Args:
        followed: choices are recorded, and every other recording follows the candidate's.
        fault: a function that changes the candidate's taps in place.
    """
    rng = np.random.default_rng(seed)
    weights = network.weights(rng)
    x = rng.standard_normal((network.batch, network.width)).astype(np.float32)
    plant(network, weights, x, ties, seed)
    found: list[Trace] = []
    handed: dict[str, dict[str, Array]] = {}

    def add(side: str, precision: str, variant: int = 0, leader: str = "float32") -> None:
        start = ulp_variant({n: w.astype(precision) for n, w in weights.items()}, variant)
        start = start if variant else {n: w.astype(precision) for n, w in weights.items()}
        order = 1 if side == "a" else -1
        done = record(network, start, x.astype(precision), order, handed.get(leader))
        if side == "b" and not variant and followed:
            handed[precision] = done.used
        if side == "b" and fault:
            fault(done.taps)
        manifest = {
            "producer": {"name": side, "version": "1", "device": "cpu"},
            "precision": precision,
            "variant": f"ulp:{variant}" if variant else None,
            "subject": {},
        }
        if followed:
            done.taps = {f"choices/{n}": c for n, c in done.choices.items()} | done.taps
            used = b"".join(choice.tobytes() for choice in done.used.values())
            manifest |= {"branch": f"{hash(used):x}", "kinks": kinks_of(network)}
        path = Path(f"{side}-{precision}-{variant}-{leader}")
        found.append(Trace(path, manifest, done.taps))

    add("b", "float32")
    add("b", "float64", leader="nobody")
    add("a", "float32")
    found[0], found[2], found[1] = found[2], found[1], found[0]
    add("a", "float64")
    if followed:
        add("a", "float64", leader="float64")
    for number in range(1, variants + 1):
        add("a", "float32", number)
        add("b", "float32", number)
    for number in (1, 2):
        add("a", "float64", number, leader="float64")
    return found
