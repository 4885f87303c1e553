"""The demo's answer to pictures that are thinner than a patch of the model."""

import base64
import io

import pytest
from magenta import make_predictor
from PIL import Image

from transfg.demo.answer import answer

SIZES = [(1, 1), (1000, 1), (1, 1000), (4000, 1), (1, 230), (2300, 10)]


@pytest.mark.parametrize("resize", ["72", "[72,72]"])
def test_thin_pictures_have_all_maps(monkeypatch, resize):
    """Of a long one, the crop is less than a pixel of the picture that the page shows."""
    monkeypatch.setattr("magenta.magenta", lambda pixels: pixels.mean(-1) + 1.0)
    predictor = make_predictor(f"data.resize={resize}", "data.crop=64", "model.patch=8")
    for size in SIZES:
        file = io.BytesIO()
        Image.new("RGB", size, (90, 120, 60)).save(file, "PNG")
        found = answer(predictor, file.getvalue(), pictures=True)
        assert found["size"] == [size[1], size[0]]
        assert {"scores", "rollout", "saliency"} == set(found["maps"])
        shown = [Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))
                 for address in (found["photo"], *found["maps"].values())]  # fmt: skip
        assert len({picture.size for picture in shown}) == 1 and min(shown[0].size) >= 1
        left, top, right, bottom = found["crop"]
        assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1
