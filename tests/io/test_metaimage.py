import bz2
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from scipy.spatial.transform import Rotation

from medssl.io.discover import check_folder, find_sources, read_folder, read_volume

VALUES = np.random.default_rng(0).integers(0, 100, (3, 4, 5))  # [x, y, z] as stored
AFFINE = np.diag([-1.0, -2.0, 3.0, 1.0]) + np.outer([10.0, 20.0, 30.0, 0.0], [0, 0, 0, 1])  # of the headers below, in RAS
META = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = False
TransformMatrix = 1 0 0 0 1 0 0 0 1
Offset = -10 -20 30
AnatomicalOrientation = RAI
ElementSpacing = 1 2 3
DimSize = 3 4 5
ElementType = MET_SHORT
ElementDataFile = LOCAL
"""
NRRD = """NRRD0004
type: short
dimension: 3
space: left-posterior-superior
sizes: 3 4 5
space directions: (1,0,0) (0,2,0) (0,0,3)
kinds: domain domain domain
endian: little
encoding: raw
space origin: (-10,-20,30)

"""
STORED = VALUES.astype("<i2").tobytes(order="F")

Writer = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    """Writes a header with some of its lines replaced (or left out), and the voxels."""

    def write(header: str, *changes: tuple[str, str], data: bytes = STORED, name: str = "") -> Path:
        for old, new in changes:
            assert old in header
            header = header.replace(old, new)
        path = tmp_path / (name or ("scan.mha" if header.startswith("Obj") else "scan.nrrd"))
        path.write_bytes(header.encode() + data)
        return path

    return write


def reasons(path: Path) -> tuple[str, ...]:
    (reading,) = read_folder(path)
    return reading.record.reasons


def oblique(kind: int) -> SimpleITK.Image:
    image = SimpleITK.Cast(SimpleITK.GetImageFromArray(VALUES.astype(np.float64)), kind)
    image.SetSpacing((0.7, 0.9, 2.5))
    image.SetOrigin((-10, 20.5, 3))
    image.SetDirection(Rotation.from_euler("xyz", [10, 20, 130], degrees=True).as_matrix().ravel())
    return image


TYPES = ["Int8", "UInt8", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float32", "Float64"]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("suffix", ["mha", "mhd", "nrrd", "nhdr"])
@pytest.mark.parametrize("kind", TYPES)
def test_every_type_and_container_is_read_as_simpleitk_reads_it(tmp_path, kind, suffix, compressed):
    path = tmp_path / f"scan.{suffix}"
    SimpleITK.WriteImage(oblique(getattr(SimpleITK, f"sitk{kind}")), path, useCompression=compressed)
    image = SimpleITK.DICOMOrient(SimpleITK.ReadImage(path), "RAS")
    volume = read_volume(path)
    axes = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    assert reasons(path) == ()
    assert np.array_equal(volume.array[0], SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0))
    assert np.allclose(volume.affine[:3, :3], np.diag([-1, -1, 1]) @ axes, atol=1e-4)
    assert np.allclose(volume.affine[:3, 3], np.array(image.GetOrigin()) * [-1, -1, 1], atol=1e-4)


@pytest.mark.parametrize("header", [META, NRRD], ids=["meta", "nrrd"])
def test_patient_coordinates_become_ras(write, header):
    volume = read_volume(write(header))
    assert np.array_equal(volume.array[0], VALUES[::-1, ::-1])
    assert np.allclose(volume.affine, AFFINE @ np.array([[-1, 0, 0, 2], [0, -1, 0, 3], [0, 0, 1, 0], [0, 0, 0, 1]]))


@pytest.mark.parametrize(
    ("space", "turned"),
    [
        ("right-anterior-superior", VALUES),
        ("RAS", VALUES),
        ("left-anterior-superior", VALUES[::-1]),
        ("LAS", VALUES[::-1]),
        ("LPS", VALUES[::-1, ::-1]),
    ],
)
def test_each_anatomical_space_of_nrrd_is_known(write, space, turned):
    assert np.array_equal(read_volume(write(NRRD, ("left-posterior-superior", space))).array[0], turned)


BIG = VALUES.astype(">i2").tobytes(order="F")
TEXT = " ".join(str(value) for value in VALUES.ravel(order="F")).encode()
SAME = {
    "nrrd big": (NRRD, ("little", "big"), BIG),
    "nrrd text": (NRRD, ("raw", "ascii"), TEXT),
    "nrrd hex": (NRRD, ("raw", "hex"), STORED.hex().encode() + b"\n"),
    "nrrd windows lines": (NRRD, ("\n", "\r\n"), STORED),
    "nrrd skip": (NRRD, ("raw", "raw\nbyte skip: 7"), b"x" * 7 + STORED),
    "nrrd last bytes": (NRRD, ("raw", "raw\nbyte skip: -1"), b"x" * 7 + STORED),
    "nrrd comment": (NRRD, ("type", "# a comment\nkey:=value: with colon\ntype"), STORED),
    "nrrd axis of one": (
        NRRD.replace("dimension: 3", "dimension: 4").replace("kinds:", "kinds: list").replace("sizes: 3", "sizes: 1 3"),
        ("directions:", "directions: none"),
        STORED,
    ),
    "meta big": (META, ("MSB = False", "MSB = True"), BIG),
    "meta text": (META, ("BinaryData = True", "BinaryData = False"), TEXT),
    "meta zlib": (META, ("CompressedData = False", "CompressedData = True"), zlib.compress(STORED)),
    "meta names": (META, ("Offset", "Position"), STORED),
    "meta axis of one": (
        META.replace("NDims = 3", "NDims = 4").replace("3 4 5", "3 4 5 1").replace("30\n", "30 0\n").replace("1 2 3", "1 2 3 1"),
        ("1 0 0 0 1 0 0 0 1", "1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1"),
        STORED,
    ),
}


@pytest.mark.parametrize("case", SAME)
def test_every_way_to_write_a_volume_gives_the_same_one(write, case):
    header, change, data = SAME[case]
    path = write(header, change, data=data)
    assert reasons(path) == ()
    assert np.array_equal(read_volume(path).array[0], VALUES[::-1, ::-1])


def test_bzip2_is_read(write):
    path = write(NRRD, ("raw", "bzip2"), data=bz2.compress(STORED))
    assert np.array_equal(read_volume(path).array[0], VALUES[::-1, ::-1])


REFUSED = {
    "nrrd no space": ("no_geometry", NRRD, ("space: left-posterior-superior\n", ""), STORED),
    "nrrd scanner": ("no_geometry", NRRD, ("left-posterior-superior", "scanner-xyz"), STORED),
    "nrrd no origin": ("no_geometry", NRRD, ("space origin: (-10,-20,30)\n", ""), STORED),
    "nrrd no directions": ("no_geometry", NRRD, ("space directions: (1,0,0) (0,2,0) (0,0,3)\n", ""), STORED),
    "nrrd unknown space": ("bad_header", NRRD, ("left-posterior-superior", "left-posterior"), STORED),
    "nrrd no byte order": ("bad_header", NRRD, ("endian: little\n", ""), STORED),
    "nrrd field twice": ("bad_header", NRRD, ("type: short", "type: short\ntype: short"), STORED),
    "nrrd unknown field": ("bad_header", NRRD, ("type: short", "type: short\ntipe: short"), STORED),
    "nrrd origin nan": ("bad_header", NRRD, ("(-10,", "(nan,"), STORED),
    "nrrd encoding": ("bad_header", NRRD, ("raw", "lzma"), STORED),
    "nrrd block": ("bad_datatype", NRRD, ("short", "block"), STORED),
    "nrrd colour": ("bad_datatype", NRRD, ("kinds: domain", "kinds: RGB-color"), STORED),
    "nrrd vector": ("bad_datatype", NRRD, ("kinds: domain", "kinds: vector"), STORED),
    "nrrd time": ("not_3d", NRRD, ("kinds: domain", "kinds: time"), STORED),
    "nrrd plane": (
        "not_3d",
        NRRD.replace("dimension: 3", "dimension: 2").replace(" (0,0,3)", "").replace("n domain\n", "n\n"),
        ("3 4 5", "12 5"),
        STORED,
    ),
    "nrrd size": ("bad_size", NRRD, ("3 4 5", "0 4 5"), STORED),
    "nrrd huge": ("declared_size", NRRD, ("3 4 5", "60000 60000 60000"), STORED),
    "nrrd cut": ("truncated", NRRD, ("raw", "raw"), STORED[:-1]),
    "nrrd gzip damaged": ("corrupt_gzip", NRRD, ("raw", "gzip"), STORED),
    "nrrd gzip bomb": ("inflated_size", NRRD.replace("3 4 5", "700 700 700"), ("raw", "gzip"), b"\x1f\x8b"),
    "nrrd direction": ("bad_orientation", NRRD, ("(0,2,0)", "(0,0,1)"), STORED),
    "nrrd direction nan": ("bad_orientation", NRRD, ("(0,2,0)", "(0,nan,0)"), STORED),
    "nrrd spacing": ("bad_pixelspacing", NRRD, ("(0,2,0)", "(0,2000,0)"), STORED),
    "nrrd list": ("unsupported_format", NRRD, ("raw", "raw\ndata file: LIST\na.raw"), STORED),
    "meta no matrix": ("no_geometry", META, ("TransformMatrix = 1 0 0 0 1 0 0 0 1\n", ""), STORED),
    "meta no offset": ("no_geometry", META, ("Offset = -10 -20 30\n", ""), STORED),
    "meta offset nan": ("bad_header", META, ("-10", "nan"), STORED),
    "meta matrix": ("bad_orientation", META, ("1 0 0 0 1 0 0 0 1", "1 0 0 1 0 0 0 0 1"), STORED),
    "meta matrix long": ("bad_orientation", META, ("1 0 0 0 1 0 0 0 1", "2 0 0 0 1 0 0 0 1"), STORED),
    "meta spacing": ("bad_pixelspacing", META, ("= 1 2 3", "= 1 0 3"), STORED),
    "meta spacing comma": ("bad_pixelspacing", META, ("= 1 2 3", "= 1,5 2 3"), STORED),
    "meta channels": ("bad_datatype", META, ("DimSize", "ElementNumberOfChannels = 3\nDimSize"), STORED * 3),
    "meta array": ("bad_datatype", META, ("MET_SHORT", "MET_SHORT_ARRAY"), STORED),
    "meta long": ("bad_datatype", META, ("MET_SHORT", "MET_LONG"), STORED * 4),
    "meta slope": ("bad_rescale", META, ("DimSize", "ElementToIntensityFunctionSlope = 0\nDimSize"), STORED),
    "meta four axes": ("not_3d", META.replace("NDims = 3", "NDims = 4"), ("3 4 5", "3 4 5 2"), STORED * 2),
    "meta sizes": ("bad_header", META, ("3 4 5", "3 4"), STORED),
    "meta flag": ("bad_header", META, ("CompressedData = False", "CompressedData = Fals"), STORED),
    "meta size": ("bad_size", META, ("3 4 5", "3 -4 5"), STORED),
    "meta huge": ("declared_size", META, ("3 4 5", "60000 60000 60000"), STORED),
    "meta cut": ("truncated", META, ("True", "True"), STORED[:-1]),
    "meta no data": ("truncated", META, ("ElementDataFile = LOCAL\n", ""), b""),
    "meta damaged": ("corrupt_gzip", META, ("CompressedData = False", "CompressedData = True"), zlib.compress(STORED)[:-1] + b"x"),
    "meta object": ("not_a_scan", META, ("= Image", "= Scene"), STORED),
    "meta list": ("unsupported_format", META, ("LOCAL", "LIST\na.raw"), b""),
    "meta pattern": ("unsupported_format", META, ("LOCAL", "a%02d.raw 1 9 1"), b""),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_header_without_meaning_is_refused_by_name(write, case):
    code, header, change, data = REFUSED[case]
    assert reasons(write(header, change, data=data)) == (code,)


def test_a_stream_that_inflates_beyond_its_header_is_not_followed(write):
    path = write(NRRD, ("raw", "gzip"), data=zlib.compress(STORED + bytes(8 << 20), wbits=31))
    assert reasons(path) == ("trailing_bytes",)
    assert np.array_equal(read_volume(path).array[0], VALUES[::-1, ::-1])


@pytest.mark.parametrize(
    ("header", "change", "code"),
    [
        (NRRD, ("encoding", 'space units: "um" "um" "um"\nencoding'), "units_converted"),
        (META, ("DimSize", "DistanceUnits = um\nDimSize"), "units_converted"),
        (META, ("RAI", "LPI"), "orientation_code_disagrees"),
        (NRRD, ("(0,2,0)", "(1,2,0)"), "sheared_affine"),
        (NRRD, ("encoding", "encoding"), "trailing_bytes"),
    ],
)
def test_what_is_odd_but_clear_is_a_warning(write, header, change, code):
    data = STORED + b"\0" * (code == "trailing_bytes")
    assert reasons(write(header, change, data=data)) == (code,)


def test_microns_are_converted(write):
    volume = read_volume(write(META, ("DimSize", "DistanceUnits = um\nDimSize"), ("1 2 3", "1000 2000 3000")))
    assert volume.spacing_mm == pytest.approx((1, 2, 3))


def test_slope_and_offset_of_metaimage_are_applied(write):
    functions = "ElementToIntensityFunctionSlope = 2\nElementToIntensityFunctionOffset = -7\nDimSize"
    assert np.array_equal(read_volume(write(META, ("DimSize", functions))).array[0], VALUES[::-1, ::-1] * 2 - 7)


def test_the_modality_of_metaimage_is_kept(write):
    assert read_volume(write(META, ("DimSize", "Modality = MET_MOD_CT\nDimSize"))).modality == "CT"


NAMES = ["../secret.raw", "/etc/passwd", "sub/../../secret.raw", "..\\secret.raw", "C:secret.raw", "file:///etc/passwd"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["{}", "LIST\n{}", "{}%d 1 5 1"])
@pytest.mark.parametrize("header", [META, NRRD], ids=["meta", "nrrd"])
def test_a_detached_name_never_leads_out_of_the_folder(write, header, form, name):
    change = ("LOCAL\n", f"{form.format(name)}\n") if header is META else ("raw\n", f"raw\ndata file: {form.format(name)}\n")
    assert reasons(write(header, change)) == ("path_escape",)


@pytest.mark.parametrize(
    ("header", "name"),
    [(META.replace("LOCAL", "sub/voxels.raw"), "scan.mhd"), (f"{NRRD.strip()}\ndata file: sub/voxels.raw\n", "scan.nhdr")],
)
def test_detached_voxels_below_the_folder_are_read_and_no_scan_of_their_own(write, header, name):
    path = write(header, name=name, data=b"")
    (path.parent / "sub").mkdir()
    (path.parent / "sub" / "voxels.raw").write_bytes(STORED)
    (scan,) = check_folder(path.parent)["scans"]
    assert (scan["source"], scan["reasons"]) == (name, [])
    assert np.array_equal(read_volume(path).array[0], VALUES[::-1, ::-1])


def test_a_link_to_detached_voxels_is_not_followed(write, tmp_path):
    (tmp_path / "in").mkdir()
    path = write(META, ("LOCAL", "voxels.raw"), name="in/scan.mhd", data=b"")
    (tmp_path / "secret.raw").write_bytes(STORED)
    (path.parent / "voxels.raw").symlink_to(tmp_path / "secret.raw")
    assert reasons(path) == ("path_escape",)


@pytest.mark.parametrize("name", ["x" * 300, "x" * 5000, "x/" * 300, "a\x07b", "."])
def test_a_name_that_no_file_can_have_is_refused(write, name):
    assert reasons(write(META, ("LOCAL", name), name="scan.mhd", data=b""))[0] in ("bad_header", "not_found")


def test_absent_detached_voxels_are_named(write):
    assert reasons(write(META, ("LOCAL", "gone.raw"), name="scan.mhd", data=b"")) == ("not_found",)


def test_a_header_cannot_hide_a_scan_by_naming_it_as_its_voxels(write):
    scan = write(NRRD)
    write(META, ("LOCAL", scan.name), name="scan.mhd", data=b"")
    assert [source.source for source in find_sources(scan.parent)] == ["scan.mhd", "scan.nrrd"]


def test_the_content_decides_the_format_and_not_the_name(write):
    assert reasons(write(NRRD, name="scan.mha")) == ("wrong_extension",)
    assert reasons(write(META, name="scan.nii")) == ("wrong_extension",)
