"""JAX, with flax.linen."""
