import math

import numpy as np
import pytest
from monai.metrics.utils import create_table_neighbour_code_to_surface_area

from medssl.evaluation import surface_area
from medssl.evaluation.surface_area import hausdorff_by_area, surface_dice_by_area, surface_elements


def cube(start, stop, shape=(12, 12, 12)):
    mask = np.zeros(shape, bool)
    mask[(slice(start, stop),) * 3] = True
    return mask


def test_the_area_between_eight_voxels_agrees_with_the_table_of_deepmind():
    spacing = (2.5, 0.9, 0.7)
    areas, _ = create_table_neighbour_code_to_surface_area(spacing)
    assert surface_area._areas(*spacing) == pytest.approx([float(area) for area in areas], abs=1e-5)


def test_the_area_of_a_cube_is_a_little_less_than_its_faces():
    elements, _ = surface_elements(cube(2, 10), cube(2, 10), spacing_mm=(1, 1, 1))
    assert 0.9 * 6 * 64 < elements.areas_mm2.sum() < 6 * 64


def test_equal_masks_agree_entirely():
    assert surface_dice_by_area(cube(2, 8), cube(2, 8), spacing_mm=(1, 2, 3), tolerance_mm=0.1) == pytest.approx(1)
    assert hausdorff_by_area(cube(2, 8), cube(2, 8), spacing_mm=(1, 2, 3)) == 0


def test_a_shift_by_one_voxel_is_one_step_away():
    shifted = np.roll(cube(2, 8), 1, axis=0)
    assert hausdorff_by_area(cube(2, 8), shifted, spacing_mm=(2.5, 1, 1), percent=100) == 2.5


def test_two_empty_masks_have_no_surface():
    empty = np.zeros((4, 4, 4), bool)
    assert surface_dice_by_area(empty, empty, spacing_mm=(1, 1, 1), tolerance_mm=1) is None
    assert hausdorff_by_area(empty, empty, spacing_mm=(1, 1, 1)) is None


def test_one_empty_mask_is_the_worst_value():
    empty, full = np.zeros((4, 4, 4), bool), cube(1, 3, (4, 4, 4))
    assert surface_dice_by_area(full, empty, spacing_mm=(1, 1, 1), tolerance_mm=1) == 0
    assert hausdorff_by_area(full, empty, spacing_mm=(1, 1, 1)) == math.inf


def test_the_outline_of_an_image_counts_as_long_as_it_is():
    image = cube(2, 10)[:, :, 5:6]
    elements, _ = surface_elements(image, image, spacing_mm=(1, 1, 4))
    assert elements.areas_mm2.sum() / 4 == pytest.approx(4 * 7 + 4 * math.sqrt(0.5))
