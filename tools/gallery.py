"""Make the pictures of docs/gallery.md with `transfg explain`, on toy birds.

    transfg sweep configs/sweeps/toy/models.yaml      # trains the models, if they are not there
    python -m tools.gallery runs/toy_models

It runs the commands that the page shows, and saves their figures as small JPEGs in docs/images.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

IMAGES = Path(__file__).parents[1] / "docs" / "images"
WIDTH, QUALITY = 1100, 82  # pixels; of a JPEG
BIRD = "data/toy/images/004.Dune_Pipit/Dune_Pipit_0101.jpg"  # of the test split
# picture -> run, words of the command, and the figure that it writes
FIGURES = {
    "transfg": ("transfg_torch", [BIRD], "Dune_Pipit_0101.png"),
    "extra": ("extra_torch", [BIRD], "Dune_Pipit_0101.png"),
    "vit": ("vit_jittor", [BIRD, "--backend", "jittor"], "Dune_Pipit_0101.png"),
    "convnet": ("convnet_torch", [BIRD], "Dune_Pipit_0101.png"),
    "swinfc": ("swinfc_torch", [BIRD], "Dune_Pipit_0101.png"),
    "filters": ("transfg_torch", ["--model"], "filters.png"),
    "positions": ("transfg_torch", ["--model"], "positions.png"),
    "confusion": ("transfg_torch", ["--model"], "confusion.png"),
    "hardest": ("transfg_torch", ["--model"], "hardest.jpg"),
    "parts": ("transfg_torch", ["--model"], "part_hits.png"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", type=Path, help="the folder of the sweep's runs")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        made: dict[tuple[str, ...], Path] = {}
        for name, (run, words, figure) in FIGURES.items():
            key = (run, *words)
            if key not in made:
                made[key] = Path(folder) / name
                command = ["transfg", "explain", str(runs / run), *words, "--out", str(made[key])]
                print(" ".join(command))
                subprocess.run([sys.executable, "-m", *command], check=True)
            picture = Image.open(made[key] / figure).convert("RGB")
            picture.thumbnail((WIDTH, 2 * WIDTH), Image.Resampling.LANCZOS)
            picture.save(IMAGES / f"gallery-{name}.jpg", quality=QUALITY, optimize=True)


if __name__ == "__main__":
    main()
