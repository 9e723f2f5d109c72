"""No value of a patient in anything that a whole run leaves behind: reports, stores, results, copies, names, and what was said."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from medssl.cli import main
from medssl.data.preprocess import Preprocess
from medssl.models.bundle import Bundle
from medssl.models.inference import Window
from medssl.models.residual_unet import ResidualUNet
from tests.data.conftest import picture, save

pytestmark = pytest.mark.slow
PLANTED = ("Secret", "SSN-123", "SYNTH", "19600101")  # SSN alone stands by chance in the letters of an embedded picture
PATIENTS = 6


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Series of some patients under neutral names, one of them cut short, with a patient's values in every header."""
    for patient in range(PATIENTS):
        folder = tmp_path / "scans" / f"case{patient}"
        folder.mkdir(parents=True)
        for k in range(4):
            write_slice(folder / f"{k}.dcm", patient, k)
    last = tmp_path / "scans" / f"case{PATIENTS - 1}" / "3.dcm"
    last.write_bytes(last.read_bytes()[:-100])
    return tmp_path / "scans"


def write_slice(path: Path, patient: int, k: int) -> None:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = CTImageStorage, f"1.2.{patient}.4.{k + 1}", "CT"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = "Secret^Patient", f"SSN-123-{patient}", "19600101"
    ds.InstitutionName, ds.StationName, ds.StudyDescription = "SYNTH HOSPITAL", "SYNTH", "CT of Secret Patient"
    ds.StudyDate, ds.AccessionNumber, ds.PatientComments = "19600101", "SSN-123", "Secret"
    ds.private_block(0x0029, "SYNTH", create=True).add_new(0x10, "LO", "Secret")
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = f"1.2.{patient}", f"1.2.{patient}.4", f"1.2.{patient}.5"
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = 16, 16, 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    ds.PixelSpacing, ds.SliceThickness, ds.RescaleSlope, ds.RescaleIntercept = [1, 1], 3, 1, -1024
    ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 3 * k]
    ds.PixelData = np.random.default_rng(10 * patient + k).integers(0, 2000, (16, 16)).astype("<u2").tobytes()
    ds.save_as(path, enforce_file_format=True)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    network = ResidualUNet(widths=(2, 4))
    points: dict[str, dict[str, object]] = {"scan": {"threshold": 0.5, "rule": "youden"}}
    written = Bundle("segmentation", network.architecture(), Preprocess(), Window((8, 8), flips=False), operating_points=points)
    written.write(tmp_path / "bundle", network, "")
    return tmp_path / "bundle"


def leaks(folder: Path) -> list[str]:
    """Places below a folder whose name or content holds a planted value."""
    named = [path.name for path in folder.rglob("*") if any(word in path.name for word in PLANTED)]
    files = [path for path in folder.rglob("*") if path.is_file()]
    return named + [path.name for path in files if any(word.encode() in path.read_bytes() for word in PLANTED)]


def test_a_whole_run_leaves_no_value_of_a_patient(
    scans: Path, bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    left = tmp_path / "left"
    left.mkdir()
    commands = [
        ["check", str(scans), "--report", str(left / "report.json")],
        ["prepare", str(scans), "--out", str(left / "store")],
        ["score", str(bundle), str(scans), "--out", str(left / "results")],
        ["report", str(left / "results")],
        ["deidentify", str(scans), "--out", str(left / "copies"), "--key", str(tmp_path / "key"), "--new_key", "true"],
    ]
    codes = [main(command) for command in commands]
    captured = capfd.readouterr()
    said = (captured.out + captured.err + caplog.text).replace(str(tmp_path), "")
    assert max(codes) <= 1
    assert {path.name for path in left.iterdir()} == {"report.json", "store", "results", "copies"}
    assert leaks(left) == []
    assert [word for word in PLANTED if word in said] == []


def test_a_report_in_the_table_is_in_no_result(bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines = ["patient,image,label,split,report"]
    for patient in range(PATIENTS):
        save(tmp_path / "scans" / f"p{patient}.nii.gz", picture(patient, (16, 16, 4)))
        lines.append(f'p{patient},p{patient}.nii.gz,{["normal", "lesion"][patient % 2]},test,"Secret finding, stable."')
    (tmp_path / "scans" / "images.csv").write_text("\n".join(lines))
    assert main(["prepare", str(tmp_path / "scans"), "--out", str(tmp_path / "store"), "--like", str(bundle)]) == 0
    assert main(["evaluate", str(bundle), str(tmp_path / "store"), "--split", "test", "--out", str(tmp_path / "left")]) == 0
    captured = capfd.readouterr()
    assert (tmp_path / "left" / "report.html").is_file()
    assert leaks(tmp_path / "left") == []
    looks = [(folder / "looks.jsonl").read_text().splitlines() for folder in (tmp_path / "store", tmp_path / "left")]
    assert [len(lines) for lines in looks] == [1, 1] and '"event": "scored"' in looks[0][0]
    assert "Secret" not in captured.out + captured.err
    assert leaks(tmp_path / "store") == ["manifest.csv"]
