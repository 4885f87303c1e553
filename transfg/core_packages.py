"""A check of the packages that the core needs; uses only the standard library."""

import subprocess
import sys

CORE = {  # module -> package
    "numpy": "numpy",
    "PIL.Image": "pillow",
    "yaml": "PyYAML",
    "pydantic": "pydantic",
    "typer": "typer",
    "rich": "rich",
    "grain": "grain",
    "safetensors": "safetensors",
    "scipy": "scipy",
}


def failure(modules: list[str]) -> str:
    """Import the modules in a child process; return its last error line, empty on success."""
    code = "import " + ", ".join(modules)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"ended with status {done.returncode}"


def report_broken_core() -> bool:
    """Print every package of the core that cannot be imported; return whether there is one."""
    if not failure(list(CORE)):
        return False
    for module, package in CORE.items():
        reason = failure([module])
        if reason:
            print(
                f"error: {package} does not import: {reason}; run: "
                f"{sys.executable} -m pip install --force-reinstall {package} -c constraints.txt",
                file=sys.stderr,
            )
    return True
