"""Where Jittor keeps its caches."""

from pathlib import Path


def jittor_home() -> Path:
    """The folder that Jittor calls its home; its caches lie in `.cache/jittor` below it.

    JITTOR_HOME, else what Jittor remembered from an earlier JITTOR_HOME, else the user's home.
    """
    import jittor_utils

    return Path(jittor_utils.home())
