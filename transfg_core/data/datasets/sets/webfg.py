"""WebFG-496 (Sun et al. 2021): three data sets of photographs from the web, with noisy labels.

    web-bird/train/<class>/*.jpg, web-bird/val/<class>/*.jpg      also web-aircraft/ and web-car/

val/ is the test split: the official test images of CUB-200-2011, FGVC-Aircraft and Stanford Cars.
Classes are sorted by name. Some files are broken: `data.on_bad_image: skip` leaves them out.
"""

from pathlib import Path

from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets.listing import find_root


def with_own_folder(config: DataConfig) -> DataConfig:
    """The configuration with the folder of train/ and val/ as its root, for the folder reader.

    Raises:
        UserError: there is no train/, neither in `config.root` nor in a folder of the set's name.
    """
    name = config.name
    nested = [name, f"{name}/{name}", f"WebFG-496/{name}", f"WebFG-496/{name}/{name}"]
    root = find_root(Path(config.root), ["train"], nested)
    return config.model_copy(update={"root": str(root)})
