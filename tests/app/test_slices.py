"""Slices are drawn the right way round."""

import numpy as np
import pytest

from medssl.errors import ScanError
from slices import CANVAS, PLANES, PREDICTED, TRUE, Look, draw_slice, oriented, picture_size, presets
from volumes import KINDS, ScanMaps, load_maps, map_path

PLAIN = Look(window=1.0, level=0.5, letters=False)


def maps_with(image, probability=None, mask=None, lesion=None, spacing_mm=(1.0, 1.0, 1.0)):
    affine = np.diag([*spacing_mm, 1.0])
    return ScanMaps(image=image, affine=affine, probability=probability, mask=mask, lesion=lesion, range=(0.0, 1.0), percentiles=(0.0, 1.0))


@pytest.mark.parametrize(
    ("name", "voxel"),
    [("Axial", (5, 5, 1)), ("Coronal", (5, 1, 5)), ("Sagittal", (1, 5, 5))],
)
def test_the_high_ends_of_the_axes_are_top_left_as_in_radiological_display(name, voxel):
    array = np.zeros((6, 6, 6), np.float32)
    array[voxel] = 1
    assert oriented(array, PLANES[name], 1)[0, 0] == 1


def test_the_right_of_the_patient_is_drawn_on_the_left_of_the_picture():
    image = np.zeros((8, 8, 1), np.float32)
    image[6, 4, 0] = 1
    drawn = np.asarray(draw_slice(maps_with(image), PLANES["Axial"], 0, PLAIN))[:, :, 0]
    assert drawn[:, : CANVAS // 2].sum() > 10 * drawn[:, CANVAS // 2 :].sum()


def test_thick_slices_keep_the_true_proportions():
    maps = maps_with(np.zeros((10, 10, 5), np.float32), spacing_mm=(1.0, 1.0, 4.0))
    assert picture_size(maps, PLANES["Coronal"]) == (CANVAS // 2, CANVAS)


def test_contours_are_drawn_only_when_wanted():
    mask = np.zeros((8, 8, 1), np.uint8)
    mask[2:6, 2:6] = 1
    maps = maps_with(np.zeros((8, 8, 1), np.float32), mask=mask, lesion=mask)
    for look, tint in ((Look(1, 0.5, truth=True), TRUE), (Look(1, 0.5), PREDICTED)):
        assert (np.asarray(draw_slice(maps, PLANES["Axial"], 0, look)) == tint).all(axis=2).any()
    bare = np.asarray(draw_slice(maps, PLANES["Axial"], 0, Look(1, 0.5, contour=False)))
    assert not (bare == PREDICTED).all(axis=2).any()


@pytest.mark.parametrize(("name", "inside", "outside"), [("Axial", 3, 6), ("Coronal", 2, 0), ("Sagittal", 5, 1)])
def test_a_box_is_drawn_where_a_mask_of_its_voxels_would_be(name, inside, outside):
    shape = (8, 6, 10)
    mask = np.zeros(shape, np.uint8)
    mask[4:7, 1:4, 2:5] = 1
    bare = maps_with(np.zeros(shape, np.float32))
    boxes = [((3.5, 0.5, 1.5), (6.5, 3.5, 4.5))]
    pen = Look(1, 0.5, letters=False)
    boxed = np.asarray(draw_slice(bare, PLANES[name], inside, pen, boxes)) == PREDICTED
    outlined = np.asarray(draw_slice(maps_with(bare.image, mask=mask), PLANES[name], inside, pen)) == PREDICTED
    corners = [[(hits.min(), hits.max()) for hits in np.nonzero(found.all(axis=2))] for found in (boxed, outlined)]
    assert np.abs(np.subtract(*corners)).max() <= 1
    for index, look in ((outside, pen), (inside, Look(1, 0.5, contour=False))):
        assert not (np.asarray(draw_slice(bare, PLANES[name], index, look, boxes)) == PREDICTED).all(axis=2).any()


def test_the_heat_map_leaves_tissue_without_suspicion_as_it_is():
    image = np.full((8, 8, 1), 0.5, np.float32)
    probability = np.zeros_like(image)
    maps = maps_with(image, probability=probability)
    heated = draw_slice(maps, PLANES["Axial"], 0, PLAIN)
    assert heated.tobytes() == draw_slice(maps_with(image), PLANES["Axial"], 0, PLAIN).tobytes()


def test_ct_in_hounsfield_units_begins_with_a_ct_window_and_mr_with_its_percentiles():
    maps = maps_with(np.zeros((2, 2, 2), np.float32))
    ct = ScanMaps(maps.image, maps.affine, None, None, None, range=(-1000.0, 900.0), percentiles=(-990.0, 300.0))
    assert next(iter(presets(ct, "CT"))) == "Soft tissue"
    assert next(iter(presets(maps, "MR").items())) == ("Auto", (1.0, 0.5))


def test_a_damaged_map_is_told_with_the_next_command(results):
    path = map_path(results, "case_a", "image")
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ScanError, match="medssl score"):
        load_maps(results, "case_a", (1.0,) * len(KINDS))
