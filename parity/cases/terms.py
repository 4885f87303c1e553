"""How many terms each number of a tap sums, from the tables of the architecture.

The bound of a tap allows for sums that are added one by one (`parity.comparison.judge`).
"""

import re
from math import prod

from transfg_core.config.sections import Config
from transfg_core.config.stem import GROUPS
from transfg_core.models.layout import architecture, param_specs, taps_of
from transfg_core.models.rows import TapSpec, resolve

ATTENTION = ("attention", "window attention")
# operations that multiply with a weight of (outputs, inputs, kernel)
PRODUCTS = (
    *("linear", "convolution", "standardised convolution", "line convolution"),
    *("rows convolution", "columns convolution", "memories"),
)
MEANS = ("mean over positions", "mean over tokens")
SOFTMAXES = {"softmax over rows": 2, "softmax over columns": 3, "double norm": 2}  # -> axis


def sum_lengths(config: Config) -> dict[str, int]:
    """Dict: tap, without its stage -> terms of one sum. Taps that compute no long sum are absent.

    Taps are activations (`block00.attn.query`), gradients of activations (`d/...`) and of
    parameters (`grad/...`), and losses. Each counts the sum of its own operation, not of those
    before it.
    """
    model, batch = config.model, config.train.batch_size
    sizes = architecture(model).sizes(model, config.data.crop)
    sizes |= {"B": batch, "C": model.class_count}
    specs, taps = param_specs(model), taps_of(model)
    weights = {name: resolve(spec.dims, sizes) for name, spec in specs.items()}
    lengths: dict[str, int] = {}
    for name, tap in taps.items():
        shape = resolve(tap.axes, sizes)
        weight = weights[tap.params[0]] if tap.params else ()
        lengths[name] = _forward(tap, shape, weight, taps, sizes)
        for source in set(tap.reads) - {"images"}:
            backward = f"d/{source}"
            length = _backward(tap, shape, weight)
            lengths[backward] = max(length, lengths.get(backward, 1))
        for param in tap.params:
            # a class token or position is used once for each image
            axes = ["B"] if tap.operation == "tokens" else tap.axes.split()
            if tap.operation == "window attention":  # a row of the table is used once for a query
                axes = axes[:2]
            summed = [letter for letter in axes if letter not in specs[param].dims]
            length = prod(resolve(" ".join(summed), sizes))
            if is_norm(tap.operation) and param.endswith("weight"):
                length = max(length, lengths[name])  # of the normalised input, computed again
            lengths[f"grad/{param}"] = length
    features = taps["features"].axes.split()[-1]
    stages = [f"stage_loss{name[-1]}" for name in taps if re.fullmatch(r"stage_logits\d", name)]
    lengths |= dict.fromkeys(("cross_entropy", *stages, "loss"), batch * sizes["C"])
    if config.loss.contrastive:
        lengths |= dict.fromkeys(("contrastive", "loss"), batch * batch * sizes[features])
    return {name: length for name, length in lengths.items() if length > 1}


def is_norm(operation: str) -> bool:
    """Whether an operation normalises its input by sums over it."""
    return operation in ("layer_norm", "batch_norm") or operation.startswith("group norm")


def _forward(
    tap: TapSpec,
    shape: tuple[int, ...],
    weight: tuple[int, ...],
    taps: dict[str, TapSpec],
    sizes: dict[str, int],
) -> int:
    """Terms of one sum of a tap's own operation."""
    if tap.operation in PRODUCTS:
        return prod(weight[1:])
    if tap.operation == "layer_norm":
        return shape[-1]
    if tap.operation.startswith("group norm"):
        return prod(shape[1:]) // GROUPS
    if tap.operation == "batch_norm":
        return prod(shape) // shape[1]
    if tap.operation in ATTENTION:  # over tokens; scores are over the width of a head
        return max(shape[1], shape[-1])
    if tap.operation in MEANS:
        return prod(resolve(taps[tap.reads[0]].axes, sizes)) // prod(shape)
    if tap.operation in SOFTMAXES:
        return shape[SOFTMAXES[tap.operation]]
    if tap.operation == "feature fusion":  # products over channels, sums over a map's positions
        maps = [resolve(taps[name].axes, sizes) for name in tap.reads]
        return max(prod(map[2:]) for map in maps) + shape[-1]
    return 1


def _backward(tap: TapSpec, shape: tuple[int, ...], weight: tuple[int, ...]) -> int:
    """Terms of one sum of the gradient that a tap's operation passes to its input."""
    if tap.operation in PRODUCTS:
        return prod(weight) // weight[1]
    if tap.operation in SOFTMAXES:
        return shape[SOFTMAXES[tap.operation]]
    if tap.operation == "weighed map":  # the weight of a row is used in each column
        return max(shape[2:])
    if tap.operation == "gather parts":  # several heads may choose the same token
        return shape[1]
    if tap.operation == "layer_norm":
        return shape[-1]
    if tap.operation.startswith("group norm"):
        return prod(shape[1:]) // GROUPS
    if tap.operation == "batch_norm":
        return prod(shape) // shape[1]
    return max(shape[1], shape[-1]) if tap.operation in ATTENTION else 1
