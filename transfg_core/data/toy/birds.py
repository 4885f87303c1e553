"""The birds of the toy set: twenty classes that differ only in five small parts.

Shape, pose, scale, light, plumage and background are random and do not depend on the class. A
class is one row of `TABLE`. Five classes share each value of a part, and any two classes differ in
at least three parts. Two classes rendered from equal generators differ only inside the part boxes.
A missing mark (`none`) distinguishes classes as well. A box is the place of a part, marked or not,
so every image has all five boxes.

An outline is a list of `x,y` in thousandths of the side of the image at scale 1; x points right and
y down. The origin is near the middle of the bird, which faces right. P vertices are (P, 2). The
tables make this file longer than most; they stay here because only this code uses them.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Box = tuple[float, float, float, float]  # x, y, width, height in pixels, as CUB writes them
Colour = tuple[int, int, int]
Points = NDArray[np.float64]  # (P, 2)
Layers = tuple[tuple[Colour, Points], ...]  # in painting order

PARTS = ("bill", "eye_ring", "wing_bar", "tail_tip", "breast")

# name: the value of each part, in the order of PARTS
TABLE: dict[str, tuple[str, str, str, str, str]] = {
    "Alder_Flycatcher": ("gold cone", "none", "none", "none", "black spots"),
    "Bramble_Sparrow": ("gold cone", "none", "gold pair", "gold", "violet gorget"),
    "Canyon_Towhee": ("gold cone", "white", "white bar", "none", "violet gorget"),
    "Dune_Pipit": ("gold cone", "white", "gold pair", "azure", "none"),
    "Estuary_Redstart": ("gold cone", "gold", "white bar", "white", "black spots"),
    "Fern_Grosbeak": ("scarlet dagger", "none", "white bar", "white", "none"),
    "Glacier_Siskin": ("scarlet dagger", "none", "scarlet patch", "gold", "scarlet spots"),
    "Harbour_Finch": ("scarlet dagger", "white", "gold pair", "white", "scarlet spots"),
    "Island_Waxwing": ("scarlet dagger", "scarlet", "none", "azure", "violet gorget"),
    "Juniper_Warbler": ("scarlet dagger", "gold", "scarlet patch", "white", "violet gorget"),
    "Kelp_Swallow": ("black hook", "none", "none", "azure", "scarlet spots"),
    "Lantern_Wren": ("black hook", "white", "scarlet patch", "gold", "none"),
    "Moor_Linnet": ("black hook", "scarlet", "none", "white", "black spots"),
    "Nettle_Tit": ("black hook", "scarlet", "gold pair", "none", "scarlet spots"),
    "Orchard_Tanager": ("black hook", "gold", "gold pair", "gold", "black spots"),
    "Pine_Starling": ("azure wedge", "white", "none", "none", "none"),
    "Quarry_Chat": ("azure wedge", "scarlet", "white bar", "gold", "none"),
    "Reed_Bunting": ("azure wedge", "scarlet", "scarlet patch", "azure", "black spots"),
    "Saltmarsh_Lark": ("azure wedge", "gold", "white bar", "azure", "violet gorget"),
    "Thicket_Vireo": ("azure wedge", "gold", "scarlet patch", "none", "scarlet spots"),
}
CLASSES: tuple[str, ...] = tuple(TABLE)

_INK: Colour = (22, 20, 26)
_SLATE: Colour = (96, 100, 110)
_WHITE: Colour = (252, 250, 244)
_GOLD: Colour = (255, 204, 0)
_SCARLET: Colour = (232, 24, 28)
_AZURE: Colour = (0, 150, 255)
_VIOLET: Colour = (136, 20, 200)


def _polygon(path: str) -> Points:
    """The vertices of a path such as `255,-235 330,-215 385,-145`: (P, 2)."""
    return np.array([[int(number) for number in knot.split(",")] for knot in path.split()]) / 1000


def _curve(path: str) -> Points:
    """A closed Catmull-Rom spline through the K knots of the path: (6 K, 2)."""
    here = _polygon(path)
    before, after, beyond = (np.roll(here, shift, axis=0) for shift in (1, -1, -2))
    t = (np.arange(6) / 6)[None, :, None]
    linear, square = after - before, 2 * before - 5 * here + 4 * after - beyond
    cubic = 3 * here - before - 3 * after + beyond
    c0, c1, c2, c3 = (term[:, None] for term in (2 * here, linear, square, cubic))
    points: Points = (c0 + t * (c1 + t * (c2 + t * c3))).reshape(-1, 2) / 2
    return points


def _disc(x: int, y: int, radius: int) -> Points:
    turn = math.tau * np.arange(16) / 16
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    points: Points = (circle * radius + (x, y)) / 1000
    return points


def _spots(colour: Colour) -> Layers:
    places = ((135, 60), (190, 50), (115, 115), (170, 110), (150, 165))
    return tuple((colour, _disc(x, y, 20)) for x, y in places)


_RING = _disc(185, -185, 64)
_TIP = _polygon("-305,153 -278,282 -375,325 -395,210")

_MARKS: dict[str, dict[str, Layers]] = {
    "bill": {
        "gold cone": (
            (_INK, _polygon("255,-235 330,-215 385,-145 255,-100")),
            (_GOLD, _polygon("255,-222 325,-203 370,-147 255,-113")),
        ),
        "scarlet dagger": (
            (_INK, _polygon("255,-215 400,-165 400,-150 255,-120")),
            (_SCARLET, _polygon("255,-203 385,-160 255,-130")),
        ),
        "black hook": (
            (_INK, _polygon("255,-230 340,-220 385,-170 380,-100 345,-145 255,-115")),
            (_SLATE, _polygon("265,-205 335,-197 360,-170 265,-185")),
        ),
        "azure wedge": (
            (_INK, _polygon("255,-205 385,-225 385,-115 255,-125")),
            (_AZURE, _polygon("255,-193 374,-212 374,-127 255,-137")),
        ),
    },
    "eye_ring": {
        "none": (),
        "white": ((_WHITE, _RING),),
        "gold": ((_GOLD, _RING),),
        "scarlet": ((_SCARLET, _RING),),
    },
    "wing_bar": {
        "none": (),
        "white bar": ((_WHITE, _polygon("-70,0 -15,-10 10,120 -45,130")),),
        "gold pair": (
            (_GOLD, _polygon("-95,3 -60,-3 -35,127 -70,133")),
            (_GOLD, _polygon("-32,-7 3,-13 28,117 -7,123")),
        ),
        "scarlet patch": ((_SCARLET, _curve("-95,60 -30,-10 25,55 -40,130")),),
    },
    "tail_tip": {
        "none": (),
        "white": ((_WHITE, _TIP),),
        "gold": ((_GOLD, _TIP),),
        "azure": ((_AZURE, _TIP),),
    },
    "breast": {
        "none": (),
        "black spots": _spots(_INK),
        "scarlet spots": _spots(_SCARLET),
        "violet gorget": ((_VIOLET, _curve("100,55 215,30 200,100 150,180 115,120")),),
    },
}

# The bird in painting order: (colour, brightness, outline), or the name of a part to mark here
_BIRD: tuple[tuple[str, float, Points] | str, ...] = (
    ("wing", 0.85, _polygon("-140,30 -90,170 -375,325 -395,210")),  # tail
    ("wing", 0.6, _polygon("-120,105 -120,115 -385,270 -385,262")),
    "tail_tip",
    (
        "back",
        1.0,
        _curve(
            "285,-200 240,-285 150,-315 60,-270 0,-160 -120,-70 -210,60 -170,200 -30,265 "
            "120,235 220,110 235,-20 270,-110"
        ),
    ),
    (
        "belly",
        1.0,
        _curve("265,-120 160,-90 90,0 50,120 -100,200 -160,205 -30,260 120,230 215,110 230,-20"),
    ),
    ("belly", 0.84, _curve("215,100 120,190 -30,225 -165,200 -30,262 120,232")),  # flank
    ("back", 1.14, _curve("60,-250 90,-160 10,-80 -120,-30 -190,50 -115,-62 5,-155")),  # mantle
    ("cap", 1.0, _curve("280,-210 235,-280 150,-310 65,-265 30,-200 120,-235 200,-255")),
    ("wing", 1.0, _curve("60,-20 50,90 -30,165 -160,195 -290,195 -200,70 -100,-20 0,-60")),
    ("wing", 0.68, _polygon("-100,75 -105,87 -255,160 -250,150")),  # feathers
    ("wing", 0.68, _polygon("-90,115 -95,127 -225,185 -220,175")),
    ("wing", 0.68, _polygon("-110,35 -115,47 -230,115 -225,105")),
    "wing_bar",
    "breast",
    "eye_ring",
    ("pupil", 1.0, _disc(185, -185, 36)),
    ("glint", 1.0, _disc(197, -197, 11)),
    "bill",
)
_LEGS = (_polygon("20,240 35,325"), _polygon("-50,240 -35,325"))
_FEET = _polygon("0,335")  # where the branch passes

_SITES: dict[str, Points] = {
    part: np.concatenate([points for layers in values.values() for _, points in layers])
    for part, values in _MARKS.items()
}
_EXTENT: Points = np.concatenate(
    [*_SITES.values(), *_LEGS, *(row[2] for row in _BIRD if not isinstance(row, str))]
)


def _palette(codes: str) -> tuple[Colour, ...]:
    return tuple((code[0], code[1], code[2]) for code in map(bytes.fromhex, codes.split()))


# Colours of everything that does not depend on the class, as red, green, blue in hexadecimal
_EARTHY = _palette("7a5c42 966848 606a76 547092 707a4c 8e8468 785454 4e7672 68625c a0805c")
_PALE = _palette("e2d6bc d6d8d6 dcc4a4 ced4b2 e0c8be")
_PLUMAGE = {  # palette, lowest and highest brightness
    "back": (_EARTHY, 0.95, 1.2),
    "wing": (_EARTHY, 0.65, 0.95),
    "cap": (_EARTHY, 0.5, 1.1),
    "belly": (_PALE, 0.92, 1.08),
}
_BARK = _palette("5c4836 706458 4a3e3a")
_LEAF = _palette("587a3e 788c54 405c42")
_SCENERY = (
    _palette("3a5438 68804a 96a268 564a3a"),  # wood
    _palette("96b6ce bed0da dcdcd0 809ab0"),  # sky
    _palette("966a42 be9868 705642 7e7c52"),  # autumn
    _palette("545c74 847c8a b6a096 404454"),  # dusk
    _palette("b0ba82 cccca0 8ca26e beb496"),  # meadow
    _palette("5c7c82 86a0a0 b0bab2 466060"),  # shore
)
_BERRIES: tuple[Colour, ...] = (_INK, _WHITE, _GOLD, _SCARLET, _AZURE, _VIOLET)
_LEG_COLOUR: Colour = (70, 56, 50)
_LEAF_SHAPE = _curve("1000,0 0,350 -1000,0 0,-350")

_OVER = 3  # the drawing is this many times larger, then averaged
_MARGIN = 0.06  # share of the side kept free around the bird: a centre crop of 8/9 holds all of it


@dataclass(frozen=True)
class _Pose:
    """Map from bird coordinates to canvas pixels: `matrix` (2, 2) and `offset` (2,)."""

    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]

    def place(self, points: Points) -> NDArray[np.int64]:
        """Points (P, 2) as whole canvas pixels (P, 2)."""
        placed = points @ self.matrix.T + self.offset
        return np.asarray(np.rint(placed), np.int64)

    def box(self, points: Points) -> Box:
        """The box of placed points in image pixels, rounded outwards."""
        pixels = self.place(points) // _OVER
        x, y = pixels.min(0).tolist()
        width, height = (pixels.max(0) - (x, y) + 1).tolist()
        return float(x), float(y), float(width), float(height)


def _draw_pose(rng: np.random.Generator, side: int) -> _Pose:
    """A random pose: mirror, up to 15 degrees, scale 0.8 to 1.1 if it fits, shift in the image."""
    mirror, turn = rng.choice((-1, 1)), math.radians(rng.uniform(-15, 15))
    scale, stretch = rng.uniform(0.8, 1.1), rng.uniform(0.94, 1.06)
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    matrix = rotation @ np.diag([mirror * stretch, 1 / stretch])
    turned = _EXTENT @ matrix.T
    low, high = turned.min(0), turned.max(0)
    room = 1 - 2 * _MARGIN
    scale = min(scale, room / float((high - low).max()))
    shift = (room - scale * (high - low)) * rng.uniform(0, 1, 2)
    return _Pose(side * scale * matrix, side * (_MARGIN + shift - scale * low))


def _shaded(colour: Colour, brightness: float) -> Colour:
    red, green, blue = (min(255, round(channel * brightness)) for channel in colour)
    return red, green, blue


def _tint(rng: np.random.Generator, palette: tuple[Colour, ...], low: float, high: float) -> Colour:
    """A random palette colour with jittered channels and a brightness factor in [low, high]."""
    red, green, blue = palette[rng.integers(len(palette))]
    by_red, by_green, by_blue = rng.integers(-12, 13, 3).tolist()
    return _shaded((red + by_red, green + by_green, blue + by_blue), rng.uniform(low, high))


def _backdrop(rng: np.random.Generator, side: int, scenery: tuple[Colour, ...]) -> Image.Image:
    """Blurred light and foliage: a coarse grid of scenery colours with soft discs."""
    grid = np.array([_tint(rng, scenery, 0.8, 1.15) for _ in range(16)], np.uint8)
    coarse = Image.fromarray(grid.reshape(4, 4, 3)).resize((96, 96), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(coarse)
    for x, y, radius in rng.integers((0, 0, 4), (96, 96, 14), (9, 3)).tolist():
        colour = _tint(rng, scenery, 0.7, 1.3)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), colour)
    return coarse.reduce(4).resize((side, side), Image.Resampling.BICUBIC)


def _clutter(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, side: int, scenery: tuple[Colour, ...]
) -> None:
    """Twigs, leaves, and berries in the colours of the marks."""
    bark = _tint(rng, _BARK, 0.6, 1.1)
    for _ in range(rng.integers(1, 4)):
        ends = (rng.uniform(-0.1, 1.1, 4) * side).round().tolist()
        draw.line(ends, bark, max(2, side // 60))
    for _ in range(rng.integers(4, 10)):
        at, turn = rng.uniform(0, 1, 2), rng.uniform(0, math.tau)
        length, colour = rng.uniform(0.05, 0.11), _tint(rng, (*_LEAF, *scenery), 0.7, 1.2)
        along = np.array([math.cos(turn), math.sin(turn)])
        outline = at + length * _LEAF_SHAPE @ np.stack([along, (-along[1], along[0])])
        draw.polygon((outline * side).round().ravel().tolist(), colour)
    for _ in range(rng.integers(0, 4)):
        x, y = (rng.uniform(0, 1, 2) * side).round().tolist()
        radius = round(side * rng.uniform(0.012, 0.022))
        colour = _BERRIES[rng.integers(len(_BERRIES))]
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), colour)


def _perch(draw: ImageDraw.ImageDraw, rng: np.random.Generator, pose: _Pose, side: int) -> None:
    """The branch under the feet, and the legs."""
    bark, slope = _tint(rng, _BARK, 0.8, 1.3), rng.uniform(-0.3, 0.3)
    ((x, y),) = pose.place(_FEET).tolist()
    left, right = round(y - slope * x), round(y + slope * (side - x))
    thick = round(side * rng.uniform(0.02, 0.04))
    draw.line((0, left, side, right), bark, thick)
    lit = thick // 3
    draw.line((0, left - lit, side, right - lit), _shaded(bark, 1.25), max(1, thick // 4))
    for leg in _LEGS:
        draw.line(pose.place(leg).ravel().tolist(), _LEG_COLOUR, max(2, side // 90))


def _light(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Apply a gain that slopes across the image, and a slight tint."""
    ramp = np.linspace(-0.5, 0.5, image.width)
    slope, gain = rng.uniform(-0.22, 0.22, 2), rng.uniform(0.8, 1.08)
    field = gain + slope[0] * ramp[None, :] + slope[1] * ramp[:, None]  # (height, width)
    lit = np.asarray(image) * field[:, :, None] * rng.uniform(0.95, 1.05, 3)
    return Image.fromarray(lit.round().clip(0, 255).astype(np.uint8))


def draw_bird(
    class_index: int, size: int, rng: np.random.Generator
) -> tuple[Image.Image, Box, dict[str, Box]]:
    """One bird of the class: an RGB image of size x size, its box, and the box of each part."""
    side = size * _OVER
    pose = _draw_pose(rng, side)
    plumage = {region: _tint(rng, *row) for region, row in _PLUMAGE.items()}
    scenery = _SCENERY[rng.integers(len(_SCENERY))]
    canvas = _backdrop(rng, side, scenery)
    draw = ImageDraw.Draw(canvas)
    _clutter(draw, rng, side, scenery)
    _perch(draw, rng, pose, side)
    plumage |= {"pupil": _INK, "glint": _WHITE}
    marks = dict(zip(PARTS, TABLE[CLASSES[class_index]], strict=True))
    for row in _BIRD:
        if isinstance(row, str):
            layers = _MARKS[row][marks[row]]
        else:
            layers = ((_shaded(plumage[row[0]], row[1]), row[2]),)
        for colour, outline in layers:
            draw.polygon(pose.place(outline).ravel().tolist(), colour)
    boxes = {part: pose.box(_SITES[part]) for part in PARTS}
    return _light(canvas.reduce(_OVER), rng), pose.box(_EXTENT), boxes
