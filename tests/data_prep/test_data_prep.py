"""The scripts of the public data sets, on folders of the same shape."""

from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep import bids, brats, busi, folder, lgg, lung_ct, open_ms
from medssl.data.manifest import Manifest

SHARED = Path(__file__).resolve().parents[3] / "shared"


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def run(main: Callable[[list[str]], int], data: Path, out: Path) -> Manifest:
    assert main([str(data), "--out", str(out)]) == 0
    return Manifest.read(out)


def test_lgg_takes_the_site_from_the_name(tmp_path: Path) -> None:
    make(tmp_path, "TCGA_CS_1/flair.nii.gz", "TCGA_CS_1/lesion.nii.gz", "TCGA_DU_2/flair.nii.gz")
    first, second = run(lgg.main, tmp_path, tmp_path / "m.csv").rows
    assert (first.site, first.lesion, first.nominal) == ("CS", "TCGA_CS_1/lesion.nii.gz", True)
    assert (second.site, second.lesion) == ("DU", "")


@pytest.mark.parametrize("script", [busi, lung_ct])
def test_numbered_images_are_grouped_by_blocks(tmp_path: Path, script: object) -> None:
    names = [f"images/benign_{number}.png" for number in (1, 2, 45)]
    make(tmp_path, *names)
    (tmp_path / "images.csv").write_text("image,label\n" + "".join(f"{name},benign\n" for name in names))
    rows = run(script.main, tmp_path, tmp_path / "m.csv").rows  # type: ignore[attr-defined]
    assert rows[0].patient == rows[1].patient != rows[2].patient


def test_brats_joins_the_sequences(tmp_path: Path) -> None:
    make(tmp_path, "p1/flair.nii.gz", "p1/t1c.nii.gz", "p1/tumour.nii.gz", "p1/brainmask.nii.gz")
    (row,) = run(brats.main, tmp_path, tmp_path / "m.csv").rows
    assert (row.image, row.lesion) == ("p1/flair.nii.gz;p1/t1c.nii.gz", "p1/tumour.nii.gz")


def test_brats_keeps_a_patient_who_lacks_a_sequence(tmp_path: Path) -> None:
    make(tmp_path, "p1/flair.nii.gz", "p2/t1c.nii.gz")
    rows = run(brats.main, tmp_path, tmp_path / "m.csv").rows
    assert [(row.patient, row.image) for row in rows] == [("p1", "p1/flair.nii.gz;"), ("p2", ";p2/t1c.nii.gz")]


@pytest.mark.parametrize("script", [brats, lgg, open_ms])
def test_a_patient_without_an_image_is_told(tmp_path: Path, script: object, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path, "TCGA_CS_1/flair.nii.gz", "TCGA_CS_2/notes.txt")
    rows = run(script.main, tmp_path, tmp_path / "m.csv").rows  # type: ignore[attr-defined]
    assert [row.patient for row in rows] == ["TCGA_CS_1"]
    assert [message.split(" left out: ")[0] for message in caplog.messages] == ["TCGA_CS_2"]


def test_open_ms_has_a_row_a_patient(tmp_path: Path) -> None:
    make(tmp_path, "patient07/flair.nii.gz", "patient07/lesion.nii.gz")
    assert [row.patient for row in run(open_ms.main, tmp_path, tmp_path / "m.csv").rows] == ["patient07"]


def test_bids_and_folder_take_any_data(tmp_path: Path) -> None:
    make(tmp_path, "sub-1/anat/sub-1_FLAIR.nii.gz")
    assert run(bids.main, tmp_path, tmp_path / "b.csv") == run(folder.main, tmp_path, tmp_path / "f.csv")


def test_a_folder_without_the_data_ends_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lgg.main([str(tmp_path), "--out", str(tmp_path / "m.csv")]) == 2
    assert capsys.readouterr().err.startswith("no_rows: ")


@pytest.mark.real_data
@pytest.mark.skipif(not SHARED.is_dir(), reason="no folder shared beside the checkout")
@pytest.mark.parametrize(("script", "scans"), [(lgg, 81), (busi, 520), (lung_ct, 731), (open_ms, 2)])
def test_the_public_data_give_their_scans(tmp_path: Path, script: object, scans: int) -> None:
    data = SHARED / "data" / script.__name__.rsplit(".", 1)[-1]  # type: ignore[attr-defined]
    assert len(run(script.main, data, tmp_path / "m.csv").rows) == scans  # type: ignore[attr-defined]
