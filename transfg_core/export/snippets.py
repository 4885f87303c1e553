"""Code in a model card: how to load the folder. Tests run it."""

from transfg_core.config.sections import DataConfig
from transfg_core.inference.exported import ONNX

PROJECT = """```python
from transfg import load

model = load("path/to/this/folder", "torch")  # or "jittor"
for result in model(["photograph.jpg"]):
    print(result.label, result.top(5))
```"""
TIMM = """```python
import timm
from PIL import Image

model = timm.create_model("local-dir:path/to/this/folder", pretrained=True).eval()
config = timm.data.resolve_model_data_config(model)
transform = timm.data.create_transform(**config, is_training=False)
logits = model(transform(Image.open("photograph.jpg").convert("RGB")).unsqueeze(0))
print(model.pretrained_cfg["label_names"][logits.argmax()])
```"""


def session(data: DataConfig) -> str:
    """Code for ONNX Runtime that resizes and crops as `eval_transform` does."""
    height, width = data.crop
    lines = [
        "import json",
        "import numpy as np",
        "import onnxruntime",
        "from PIL import Image" + (", ImageOps" if data.exif == "apply" else ""),
        "",
        'image = Image.open("photograph.jpg")',
        *(["image = ImageOps.exif_transpose(image)"] if data.exif == "apply" else []),
        'image = image.convert("RGB")',
        *_resize(data),
        f"left, top = round((image.width - {width}) / 2), round((image.height - {height}) / 2)",
        f"crop = image.crop((left, top, left + {width}, top + {height}))",
        f'session = onnxruntime.InferenceSession("path/to/this/folder/{ONNX}")',
        '(logits,) = session.run(["logits"], {"images": np.asarray(crop)[None]})',
        'classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])',
        "print(classes[logits.argmax()])",
    ]
    return "\n".join(["```python", *lines, "```"])


def _resize(data: DataConfig) -> list[str]:
    """The lines for `data.resize`."""
    how = f"Image.Resampling.{data.interpolation.upper()}"
    if data.resize is None:
        return []
    if isinstance(data.resize, tuple):
        return [f"image = image.resize({data.resize[::-1]}, {how})  # width, height"]
    return [
        "short = min(image.size)",
        f"size = [int({data.resize} * side / short) for side in image.size]",
        f"image = image.resize(size, {how})",
    ]
