"""Where Jittor keeps its caches."""

from pathlib import Path


def jittor_home() -> Path:
    """The folder that Jittor calls its home, with its caches in `.cache/jittor`.

    JITTOR_HOME, else the one that Jittor remembers from an earlier run, else the user's home.
    """
    import jittor_utils

    return Path(jittor_utils.home())
