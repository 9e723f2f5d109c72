"""Files of several volumes: refused, or split into a scan a volume."""

import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from medssl.io.discover import find_sources, read_folder, read_source, read_volume
from medssl.io.options import ReadOptions

VALUES = np.random.default_rng(0).integers(0, 100, (3, 4, 5, 3)).astype(np.int16)
AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])
SPLIT = ReadOptions(four_d="split")


def nifti(folder: Path, name: str, values: np.ndarray = VALUES) -> Path:
    image = nib.Nifti1Image(values, AFFINE)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, folder / name)
    return folder / name


def mgh(folder: Path) -> Path:
    nib.save(nib.freesurfer.MGHImage(VALUES, AFFINE), folder / "scan.mgz")
    return folder / "scan.mgz"


def metaimage(folder: Path) -> Path:
    """In RAS, as ITK writes four axes."""
    image = SimpleITK.JoinSeries([SimpleITK.GetImageFromArray(VALUES[..., t].T) for t in range(3)])
    image.SetSpacing((1, 2, 3, 1))
    image.SetDirection(np.diag([-1.0, -1, 1, 1]).ravel())
    SimpleITK.WriteImage(image, folder / "scan.mha")
    return folder / "scan.mha"


NRRD = """NRRD0004
type: short
dimension: 4
space: right-anterior-superior
sizes: {sizes}
space directions: {directions}
kinds: {kinds}
endian: little
encoding: {encoding}
space origin: (0,0,0)

"""


def nrrd(folder: Path, *, first: bool = False, text: bool = False) -> Path:
    """Volumes along the last axis, or along the first, as sequences of 3D Slicer."""
    axes = ["3", "4", "5"], ["(1,0,0)", "(0,2,0)", "(0,0,3)"], ["domain"] * 3
    place = 0 if first else 3
    for axis, of_volumes in zip(axes, ("3", "none", "list"), strict=True):
        axis.insert(place, of_volumes)
    sizes, directions, kinds = (" ".join(axis) for axis in axes)
    header = NRRD.format(sizes=sizes, directions=directions, kinds=kinds, encoding="text" if text else "raw")
    stored = np.moveaxis(VALUES, 3, place)
    data = " ".join(map(str, stored.ravel(order="F"))).encode() if text else stored.astype("<i2").tobytes(order="F")
    (folder / "scan.nrrd").write_bytes(header.encode() + data)
    return folder / "scan.nrrd"


FILES = {
    "nii": lambda folder: nifti(folder, "scan.nii"),
    "nii.gz": lambda folder: nifti(folder, "scan.nii.gz"),
    "pair": lambda folder: nifti(folder, "scan.img"),
    "mgz": mgh,
    "mha": metaimage,
    "nrrd": nrrd,
    "nrrd, volumes first": lambda folder: nrrd(folder, first=True),
    "nrrd, text": lambda folder: nrrd(folder, first=True, text=True),
}


@pytest.fixture(params=FILES)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return FILES[request.param](tmp_path)


def test_several_volumes_are_refused_unless_somebody_chooses(path: Path) -> None:
    assert [reading.record.reasons for reading in read_folder(path.parent)] == [("not_3d",)]


def test_each_volume_is_a_scan_of_its_own(path: Path) -> None:
    readings = list(read_folder(path.parent, SPLIT))
    assert [reading.record.source for reading in readings] == [f"{path.name}/t00{number}" for number in range(3)]
    assert [reading.record.scan_id for reading in readings] == [f"scan-t00{number}" for number in range(3)]
    for number, reading in enumerate(readings):
        assert reading.volume is not None
        assert np.array_equal(reading.volume.array[0], VALUES[..., number])
        assert np.allclose(np.abs(reading.volume.affine[:3, :3]), AFFINE[:3, :3])
        assert reading.volume.spacing_mm == pytest.approx((1, 2, 3))


def test_one_volume_can_be_given_by_its_place(path: Path) -> None:
    assert np.array_equal(read_volume(path / "t002", SPLIT).array[0], VALUES[..., 2])


def test_a_file_in_an_archive_is_split_too(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(nifti(tmp_path / "plain", "scan.nii"), "in/scan.nii")
    sources = find_sources(tmp_path / "a.zip", SPLIT)
    assert [source.source for source in sources] == [f"a.zip/in/scan.nii/t00{number}" for number in range(3)]
    assert [source.scan_id[-5:] for source in sources] == ["-t000", "-t001", "-t002"]
    volume = read_source(sources[1]).volume
    assert volume is not None
    assert np.array_equal(volume.array[0], VALUES[..., 1])


def test_one_volume_keeps_its_name(tmp_path: Path) -> None:
    nifti(tmp_path, "scan.nii", VALUES[..., :1])
    assert [(reading.record.source, reading.record.status) for reading in read_folder(tmp_path, SPLIT)] == [("scan.nii", "accepted")]


@pytest.mark.parametrize("shape", [(3, 4, 5, 1, 3), (3, 4, 5, 2, 3)], ids=["vectors", "five axes"])
def test_a_fifth_axis_is_no_series_of_volumes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    nifti(tmp_path, "scan.nii", np.arange(np.prod(shape), dtype=np.int16).reshape(shape))
    assert [reading.record.reasons for reading in read_folder(tmp_path, SPLIT)] == [("not_3d",)]


def test_a_file_that_is_cut_short_refuses_each_of_its_volumes(tmp_path: Path) -> None:
    path = nifti(tmp_path, "scan.nii")
    path.write_bytes(path.read_bytes()[:-10])
    assert [reading.record.reasons for reading in read_folder(tmp_path, SPLIT)] == [("truncated",)] * 3


def test_more_volumes_than_any_scanner_makes_are_refused_once(tmp_path: Path) -> None:
    nifti(tmp_path, "scan.nii", np.zeros((1, 1, 1, 5000), np.int16))
    assert [reading.record.reasons for reading in read_folder(tmp_path, SPLIT)] == [("not_3d",)]
