"""The same network in flax: the candidate. Its images have the channels last."""

import flax.linen as nn
import jax


class Net(nn.Module):
    """(N, height, width, 3) -> (N, 5)."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """The logits of images."""
        x = nn.Conv(6, (3, 3), name="conv1")(x)
        x = nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, name="norm1")(x)
        x = nn.max_pool(nn.relu(x), (2, 2), (2, 2))
        x = nn.Conv(8, (3, 3), use_bias=False, name="conv2")(x)
        x = nn.relu(nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, name="norm2")(x))
        return nn.Dense(5, name="head")(nn.max_pool(x, (5, 5)).reshape(len(x), -1))
