"""One slice as a picture: orientation, window, heat map and contours. Pure arrays, no screen."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_erosion

from medssl.scoring.finding import Corners
from medssl.volume import Array
from volumes import ScanMaps

CANVAS = 720
PREDICTED = (255, 150, 30)
TRUE = (60, 220, 130)
CONTOUR_PIXELS = 2
# Anchors of a black-body map: dark red, red, orange, pale yellow.
HEAT = np.array([[60, 0, 20], [190, 20, 40], [250, 140, 20], [255, 250, 170]], dtype=np.float64)

CT_PRESETS = {
    "Soft tissue": (400.0, 40.0),
    "Lung": (1500.0, -600.0),
    "Brain": (80.0, 40.0),
    "Liver": (150.0, 60.0),
    "Bone": (2000.0, 400.0),
}


@dataclass(frozen=True)
class Plane:
    """A viewing plane of an RAS+ array.

    Args:
        axis: The array axis that a slice cuts.
        edges: Directions at the left, right, top and bottom edge of the picture.
        names: Directions of the negative and the positive end of the axis.
    """

    axis: int
    edges: str
    names: str


# Radiological convention: the patient's right is on the left of the screen.
PLANES = {"Axial": Plane(2, "RLAP", "IS"), "Coronal": Plane(1, "RLSI", "PA"), "Sagittal": Plane(0, "APSI", "LR")}


@dataclass(frozen=True)
class Look:
    """What to draw on a slice.

    Args:
        window: Width of the grey scale in units of the image.
        level: Its centre.
        heat: Opacity of the probability map, 0 to 1.
        contour: Draw the outline of the predicted mask, or the boxes of a detector.
        truth: Draw the outline of the true lesions.
        letters: Write the directions at the edges.
    """

    window: float
    level: float
    heat: float = 0.5
    contour: bool = True
    truth: bool = False
    letters: bool = True


def presets(maps: ScanMaps, modality: str) -> dict[str, tuple[float, float]]:
    """Named (window, level) pairs that suit a scan; the first is the default."""
    low, high = maps.percentiles
    full_low, full_high = maps.range
    shared = {
        "Auto": (max(high - low, 1e-6), (high + low) / 2),
        "Full range": (max(full_high - full_low, 1e-6), (full_high + full_low) / 2),
    }
    # CT numbers below -100 tell Hounsfield units from values that preprocessing has scaled.
    return {**CT_PRESETS, **shared} if modality == "CT" and full_low < -100 else shared


def oriented(array: Array, plane: Plane, index: int) -> Array:
    """The slice `index` as (rows, columns) in radiological display."""
    cut: Array = np.take(array, index, axis=plane.axis)
    return cut.T[::-1, ::-1]


def picture_size(maps: ScanMaps, plane: Plane) -> tuple[int, int]:
    """Width and height in pixels that fit the canvas with the true proportions of the patient."""
    across, up = (axis for axis in range(3) if axis != plane.axis)
    width_mm, height_mm = (maps.shape[axis] * maps.spacing_mm[axis] for axis in (across, up))
    scale = CANVAS / max(width_mm, height_mm)
    return max(1, round(width_mm * scale)), max(1, round(height_mm * scale))


def draw_slice(maps: ScanMaps, plane: Plane, index: int, look: Look, boxes: Sequence[Corners] = ()) -> Image.Image:
    """Draw a slice with its overlays on a square black canvas.

    Args:
        maps: The scan.
        plane: One of `PLANES`.
        index: Voxel index along the axis of the plane.
        look: Window and overlays.
        boxes: Lower and upper corners of lesions that have no mask, in voxel indices.
    """
    size = picture_size(maps, plane)
    grey = resized(windowed(oriented(maps.image, plane, index), look), size, Image.Resampling.BICUBIC)
    colour = np.repeat(grey[:, :, None], 3, axis=2)
    if maps.probability is not None and look.heat > 0:
        colour = with_heat(colour, resized(percent(oriented(maps.probability, plane, index)), size, Image.Resampling.BILINEAR), look.heat)
    for mask, wanted, tint in ((maps.mask, look.contour, PREDICTED), (maps.lesion, look.truth, TRUE)):
        if mask is not None and wanted:
            inside = resized(percent(oriented(mask, plane, index)), size, Image.Resampling.NEAREST) > 0
            colour = with_contour(colour, inside, tint)
    picture = Image.fromarray(colour.astype(np.uint8))
    if look.contour:
        draw_boxes(picture, boxes, maps.shape, plane, index)
    canvas = Image.new("RGB", (CANVAS, CANVAS))
    canvas.paste(picture, ((CANVAS - size[0]) // 2, (CANVAS - size[1]) // 2))
    return with_letters(canvas, plane.edges) if look.letters else canvas


def windowed(values: Array, look: Look) -> NDArray[np.uint8]:
    """Grey values as 0 to 255."""
    fraction = (values.astype(np.float32) - (look.level - look.window / 2)) / max(look.window, 1e-6)
    grey: NDArray[np.uint8] = (np.clip(fraction, 0, 1) * 255).astype(np.uint8)
    return grey


def percent(values: Array) -> NDArray[np.uint8]:
    """Fractions of 0 to 1 as 0 to 255."""
    return (np.clip(values.astype(np.float32), 0, 1) * 255).astype(np.uint8)


def resized(values: NDArray[np.uint8], size: tuple[int, int], how: Image.Resampling) -> NDArray[np.float64]:
    """Values of 0 to 255 at another size (width, height)."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(values)).resize(size, how), dtype=np.float64)


def with_heat(colour: NDArray[np.float64], probability: NDArray[np.float64], opacity: float) -> NDArray[np.float64]:
    """Blend a heat map whose opacity grows with the probability, so that unsuspicious tissue stays as it is."""
    fraction = probability / 255
    anchors = np.linspace(0, 1, len(HEAT))
    tint = np.stack([np.interp(fraction, anchors, HEAT[:, channel]) for channel in range(3)], axis=2)
    alpha = (np.clip(fraction * 1.5, 0, 1) * opacity)[:, :, None]
    return colour * (1 - alpha) + tint * alpha


def with_contour(colour: NDArray[np.float64], mask: NDArray[np.bool_], tint: tuple[int, int, int]) -> NDArray[np.float64]:
    """Draw the outline of a mask."""
    edge = mask & ~binary_erosion(mask, iterations=CONTOUR_PIXELS)
    colour[edge] = tint
    return colour


def draw_boxes(picture: Image.Image, boxes: Sequence[Corners], shape: tuple[int, int, int], plane: Plane, index: int) -> None:
    """Draw the edges of the boxes that a slice cuts."""
    across, up = (axis for axis in range(3) if axis != plane.axis)
    pen = ImageDraw.Draw(picture)
    for lower, upper in boxes:
        if lower[plane.axis] < index + 0.5 and upper[plane.axis] > index - 0.5:
            # Columns and rows count down along the axes of the array, whose voxel i reaches from i - 0.5 to i + 0.5.
            left, right = (picture.width * (1 - (corner[across] + 0.5) / shape[across]) for corner in (upper, lower))
            top, bottom = (picture.height * (1 - (corner[up] + 0.5) / shape[up]) for corner in (upper, lower))
            pen.rectangle((left, top, right, bottom), outline=PREDICTED, width=CONTOUR_PIXELS)


def with_letters(canvas: Image.Image, edges: str) -> Image.Image:
    """Write the directions at the left, right, top and bottom edge."""
    middle, far = CANVAS / 2, CANVAS - 16
    places = ((16, middle), (far, middle), (middle, 16), (middle, far))
    pen = ImageDraw.Draw(canvas)
    for letter, place in zip(edges, places, strict=True):
        pen.text(
            place, letter, fill=(235, 200, 90), font=ImageFont.load_default(size=20), anchor="mm", stroke_width=2, stroke_fill=(0, 0, 0)
        )
    return canvas
