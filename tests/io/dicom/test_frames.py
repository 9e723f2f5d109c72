import struct

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage, ParametricMapStorage

from medssl.io.discover import read_folder, read_volume
from tests.io.conftest import AFFINE, make_slice


def item(name: str, **values: object) -> Dataset:
    """A functional group with one macro."""
    macro, group = Dataset(), Dataset()
    for key, value in values.items():
        setattr(macro, key, value)
    setattr(group, name, [macro])
    return group


def merged(*groups: Dataset) -> Dataset:
    whole = Dataset()
    for group in groups:
        whole.update(group)
    return whole


def enhanced(voxels: np.ndarray, order: list[int]) -> Dataset:
    """All slices as one enhanced CT, its frames in the given order."""
    slices = [make_slice(voxels, k) for k in order]
    ds = slices[0]
    ds.SOPClassUID, ds.NumberOfFrames = EnhancedCTImageStorage, len(order)
    ds.PixelData = b"".join(each.PixelData for each in slices)
    shared = merged(
        item("PixelMeasuresSequence", PixelSpacing=[0.9, 0.7], SliceThickness=2.5),
        item("PlaneOrientationSequence", ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
    )
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = [
        merged(
            item("PlanePositionSequence", ImagePositionPatient=list(each.ImagePositionPatient)),
            item("PixelValueTransformationSequence", RescaleSlope=1, RescaleIntercept=-1024, RescaleType="HU"),
            item("FrameContentSequence", StackID="1"),
        )
        for each in slices
    ]
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "RescaleSlope", "RescaleIntercept"):
        delattr(ds, name)
    return ds


def parametric(voxels: np.ndarray, dtype: str) -> Dataset:
    """The same as a parametric map of floating point numbers, a hundredth of the voxels."""
    ds = enhanced(voxels, [0, 1, 2, 3])
    ds.SOPClassUID, ds.Modality = ParametricMapStorage, "MR"
    values = (np.frombuffer(ds.PixelData, "<u2").astype(np.float64) - 1024) / 100
    for name in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(ds, name)
    ds.BitsAllocated = 8 * np.dtype(dtype).itemsize
    setattr(ds, "FloatPixelData" if dtype == "<f4" else "DoubleFloatPixelData", values.astype(dtype).tobytes())
    for each in ds.PerFrameFunctionalGroupsSequence:
        del each.PixelValueTransformationSequence
    return ds


def saved(ds: Dataset, folder):
    ds.save_as(folder / "a.dcm", enforce_file_format=True)
    return folder / "a.dcm"


def reasons(path):
    (reading,) = read_folder(path)
    return reading.record.reasons


def test_frames_are_ordered_by_their_own_positions(tmp_path, voxels):
    path = saved(enhanced(voxels, [2, 0, 3, 1]), tmp_path)
    volume = read_volume(path)
    assert reasons(path) == ()
    assert np.array_equal(volume.array[0], voxels)
    assert np.allclose(volume.affine, AFFINE, atol=1e-3)


def test_each_frame_has_its_own_rescale(tmp_path, voxels):
    ds = enhanced(voxels, [0, 1, 2, 3])
    for k, each in enumerate(ds.PerFrameFunctionalGroupsSequence):
        each.PixelValueTransformationSequence[0].RescaleSlope = k + 1
        each.PixelValueTransformationSequence[0].RescaleIntercept = -1024 * (k + 1)
    assert np.array_equal(read_volume(saved(ds, tmp_path)).array[0], voxels * np.array([1, 2, 3, 4]))


def test_frames_of_several_stacks_are_no_volume(tmp_path, voxels):
    ds = enhanced(voxels, [0, 1, 2, 3])
    ds.PerFrameFunctionalGroupsSequence[3].FrameContentSequence[0].StackID = "2"
    assert reasons(saved(ds, tmp_path)) == ("not_a_volume",)


def test_positions_that_come_twice_are_four_dimensional(tmp_path, voxels):
    assert reasons(saved(enhanced(voxels, [0, 1, 2, 3, 0, 1, 2, 3]), tmp_path)) == ("not_3d", "conflicting_slices")


def test_a_position_that_alone_comes_twice_is_a_conflict(tmp_path, voxels):
    assert reasons(saved(enhanced(voxels, [0, 1, 2, 3, 1]), tmp_path)) == ("conflicting_slices",)


def test_frames_that_lie_apart_are_refused(tmp_path, voxels):
    assert reasons(saved(enhanced(voxels, [0, 1, 3]), tmp_path)) == ("missing_slice",)


@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
def test_a_parametric_map_comes_back_as_floats(tmp_path, voxels, dtype):
    volume = read_volume(saved(parametric(voxels, dtype), tmp_path))
    assert (volume.array.dtype, volume.modality) == (np.float32, "MR")
    assert np.allclose(volume.array[0], voxels / 100, rtol=1e-6)
    assert np.allclose(volume.affine, AFFINE, atol=1e-3)


def test_floats_of_another_width_than_declared_are_refused(tmp_path, voxels):
    ds = parametric(voxels, "<f4")
    ds.BitsAllocated = 64
    assert reasons(saved(ds, tmp_path)) == ("unsupported_bits",)


def mapping(slope: float) -> Dataset:
    ds = Dataset()
    ds.RealWorldValueSlope, ds.RealWorldValueIntercept = slope, 1.0
    return ds


def test_the_real_world_mapping_of_a_parametric_map_is_applied(tmp_path, voxels):
    ds = parametric(voxels, "<f8")
    ds.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence = [mapping(100.0)]
    assert np.allclose(read_volume(saved(ds, tmp_path)).array[0], voxels + 1.0, atol=1e-3)


@pytest.mark.parametrize("mappings", [[mapping(1.0), mapping(2.0)], [mapping(0.0)], [Dataset()]])
def test_mappings_that_give_no_one_value_are_refused(tmp_path, voxels, mappings):
    ds = parametric(voxels, "<f8")
    ds.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence = mappings
    assert reasons(saved(ds, tmp_path)) == ("bad_rescale",)


def csa(tiles: str) -> bytes:
    """The field of a Siemens CSA header that tells the number of tiles, with what stands around it."""
    value = tiles.encode().ljust(8)
    filled = struct.pack("<4i", 8, 8, 77, 8) + value if tiles else struct.pack("<4i", 0, 0, 77, 0)
    name = b"NumberOfImagesInMosaic".ljust(64, b"\0")
    return b"SV10\4\3\2\1" + name + struct.pack("<i4s3i", 1, b"US\0\0", 0, 1, 77) + filled + bytes(64)


def mark_csa(ds: Dataset, tiles: str) -> None:
    block = ds.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    block.add_new(0x10, "OB", csa(tiles))


def mark_new(ds: Dataset, tiles: int) -> None:
    ds.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", tiles)


@pytest.mark.parametrize(
    "mark",
    [
        lambda ds: setattr(ds, "ImageType", ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]),
        lambda ds: mark_csa(ds, "36"),
        lambda ds: mark_new(ds, 36),
    ],
)
def test_a_siemens_mosaic_is_refused_by_name_however_it_is_told(write_series, mark):
    assert reasons(write_series(lambda ds, _k: mark(ds)))[0] == "mosaic"


@pytest.mark.parametrize("mark", [lambda ds: mark_csa(ds, ""), lambda ds: mark_new(ds, 1)])
def test_a_siemens_header_without_tiles_is_no_mosaic(write_series, mark):
    assert reasons(write_series(lambda ds, _k: mark(ds))) == ()
