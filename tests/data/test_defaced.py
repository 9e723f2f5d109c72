"""Regions that were made unrecognisable are background for all that follows."""

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from medssl.data import intake, stamp
from medssl.data.dataset import Crops, load_cases
from medssl.data.defaced import without_region
from medssl.data.intake import Intake, Reading, read_row, take_in
from medssl.data.manifest import Manifest, ManifestRow
from medssl.data.prepare import prepare
from medssl.data.preprocess import Preprocess
from medssl.data.store import Store
from medssl.data.unlabelled import UnlabelledDataset
from medssl.errors import ScanError
from medssl.io.options import ReadOptions
from medssl.models.vit import ViT
from medssl.objectives.mae import MAE
from medssl.training.pretraining.pretrainer import batch_of
from medssl.views.augment import Augment
from medssl.views.batch import Batch
from medssl.views.masking import PatchMask
from medssl.volume import Volume
from tests.data.conftest import picture, save

STILL = Augment(flip=0, rotate_degrees=0, scale=0, shift=0, gain=0, offset=0, noise=0, blur=0)
FACE = (slice(0, 8), slice(8, 16), slice(0, 4))


def region() -> np.ndarray:
    mask = np.zeros((24, 24, 6), np.uint8)
    mask[FACE] = 1
    return mask


def blurred(seed: int = 0, face: float = 400.0) -> np.ndarray:
    """A scan with air around its object, and a face that is brighter than all else."""
    array = np.maximum(picture(seed), 50)
    array[:, :3] = 5
    array[FACE] = face
    return array


def row(**cells: str) -> ManifestRow:
    return ManifestRow("scan", "p", "image.nii.gz", **cells)


def take(folder: Path, **cells: str) -> Intake:
    return take_in(Reading(folder, folder / "store", row(**cells)))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One scan, its mask, and files that count as left alone at once."""
    monkeypatch.setattr(stamp, "_RACE_NS", 0)
    save(tmp_path / "image.nii.gz", blurred())
    save(tmp_path / "face.nii.gz", region())
    return tmp_path


def cohort(tmp_path: Path, *, face: float = 400.0, faces: str = "defaced", name: str = "scans") -> Path:
    """A table of four patients whose scans bring a mask of their face."""
    lines = ["patient,image" + f",{faces}" * bool(faces)]
    for number in range(4):
        save(tmp_path / name / f"p{number}.nii.gz", blurred(number, face))
        save(tmp_path / name / f"p{number}_face.nii.gz", region())
        lines.append(f"p{number},p{number}.nii.gz" + f",p{number}_face.nii.gz" * bool(faces))
    (tmp_path / name / "patients.csv").write_text("\n".join(lines))
    return tmp_path / name


def stored(store: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((store / "arrays").iterdir())]


def test_each_channel_gets_the_value_of_air_around_the_region() -> None:
    array = np.stack([blurred(0, -900.0), blurred(1) + 50]).astype(np.int16)
    array[:, 20, 20, 5] = -500  # ringing
    where = region() > 0
    found = without_region(Volume(array, np.eye(4)), where).array
    assert found.dtype == array.dtype
    assert (found[0][where] == 5).all() and (found[1][where] == 55).all()
    assert (found[:, ~where] == array[:, ~where]).all()


def test_air_that_is_not_a_number_counts_as_it_is_prepared() -> None:
    array = np.where(blurred() == 5, np.nan, blurred()).astype(np.float32)
    assert (without_region(Volume(array[None], np.eye(4)), region() > 0).array[0][FACE] == 0).all()


@pytest.mark.parametrize("around", [None, 7])
def test_a_region_that_leaves_nothing_is_refused(around: int | None) -> None:
    array, where = blurred()[None], region() > 0
    if around is None:
        where[:] = True
    else:
        array[:, ~where] = around
    with pytest.raises(ScanError, match="all_defaced"):
        without_region(Volume(array, np.eye(4)), where)


def test_lesion_in_the_region_is_refused_by_how_much_of_it(folder: Path) -> None:
    lesion = np.zeros((24, 24, 6), np.uint8)
    lesion[7:10, 10, 2] = 3
    save(folder / "lesion.nii.gz", lesion)
    found = take(folder, lesion="lesion.nii.gz", defaced="face.nii.gz")
    assert (found.refusal, "1 of 3 voxels of lesion" in found.note) == ("lesion_defaced", True)
    lesion[7] = 0
    save(folder / "lesion.nii.gz", lesion)
    assert take(folder, lesion="lesion.nii.gz", defaced="face.nii.gz").status == "accepted"


@pytest.mark.parametrize(("mask", "code"), [("grid", "label_mismatch"), ("place", "label_mismatch"), ("gone", "not_found")])
def test_a_mask_that_does_not_fit_is_refused_like_one_of_lesion(folder: Path, mask: str, code: str) -> None:
    save(folder / "grid.nii.gz", region()[:, :, :5])
    save(folder / "place.nii.gz", region(), spacing=(1.0, 1.0, 4.2))
    assert {take(folder, **{kind: f"{mask}.nii.gz"}).refusal for kind in ("lesion", "defaced")} == {code}


def test_an_empty_mask_changes_nothing(folder: Path) -> None:
    save(folder / "face.nii.gz", np.zeros((24, 24, 6), np.uint8))
    found, plain = take(folder, defaced="face.nii.gz"), take(folder)
    assert (found.status, found.defaced_share) == ("accepted", 0.0)
    assert found.content_sha256 == plain.content_sha256


def test_the_share_is_recorded_and_remembered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    share = pytest.approx(8 * 8 * 4 / (24 * 24 * 6), abs=1e-6)
    assert take(folder, defaced="face.nii.gz").as_record()["defaced_share"] == share
    monkeypatch.setattr(intake, "_read_parts", lambda *_: pytest.fail("the scan was read again"))
    assert take(folder, defaced="face.nii.gz").as_record()["defaced_share"] == share


def test_another_volume_of_the_file_of_the_mask_is_another_mask(folder: Path) -> None:
    save(folder / "faces.nii.gz", np.stack([region(), 0 * region()], axis=3))
    shares = [
        take_in(Reading(folder, folder / "store", row(defaced=f"faces.nii.gz/t00{volume}"), options=ReadOptions("split"))).defaced_share
        for volume in (0, 1)
    ]
    assert shares == [pytest.approx(0.0741, abs=1e-4), 0.0]


def test_a_region_of_more_than_half_is_warned_of(folder: Path) -> None:
    kept = 1 - region()
    kept[8:12] = 0
    save(folder / "face.nii.gz", kept)
    assert take(folder, defaced="face.nii.gz").warnings == ("mostly_defaced",)


def test_the_scan_is_known_by_its_own_voxels_and_the_entry_by_what_is_left(folder: Path) -> None:
    without, given = take(folder), take(folder, defaced="face.nii.gz")
    assert (given.row.sha256, given.voxels_sha256) == (without.row.sha256, without.voxels_sha256)
    assert given.signs is not None and without.signs is not None and (given.signs == without.signs).all()
    assert given.content_sha256 != without.content_sha256
    save(folder / "face.nii.gz", np.roll(region(), 1, axis=1))
    assert take(folder, defaced="face.nii.gz").content_sha256 not in (given.content_sha256, without.content_sha256)


def test_a_scan_without_a_mask_has_the_records_that_it_had(folder: Path) -> None:
    found = take(folder)
    assert "defaced_share" not in found.as_record()
    assert "defaced" not in (folder / "store" / "readings" / "scan.json").read_text()
    Manifest((found.row,)).write(folder / "manifest.csv")
    assert "defaced" not in (folder / "manifest.csv").read_text()
    rest = {name: value for name, value in vars(found.row).items() if name not in ("leakage", "vendor", "field", "slice_mm", "defaced")}
    assert Manifest((found.row,)).digest() == hashlib.sha256(json.dumps([rest], sort_keys=True).encode()).hexdigest()


def test_what_stood_in_the_region_leaves_no_trace_in_a_store(tmp_path: Path) -> None:
    preprocess = Preprocess(spacing_mm=(1.5, 1.5, 0.0))
    for name, face in (("bright", 400.0), ("dark", -900.0)):
        prepare(cohort(tmp_path, face=face, name=name), tmp_path / f"of_{name}", preprocess=preprocess)
    assert stored(tmp_path / "of_bright") == stored(tmp_path / "of_dark")


def test_a_store_says_which_masks_were_given_and_goes_with_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder, store = cohort(tmp_path), tmp_path / "store"
    with caplog.at_level("INFO"):
        prepare(folder, store)
    assert "4 scans have a mask of what was defaced: 7.4 to 7.4 % of a scan" in caplog.text
    assert [row.defaced for row in Store(store).manifest.rows] == [f"p{number}_face.nii.gz" for number in range(4)]
    before = stored(store)
    cohort(tmp_path, faces="")
    prepare(folder, store)
    assert not set(stored(store)) & set(before)
    assert not any(row.defaced for row in Store(store).manifest.rows)


def batch(store: Path) -> Batch:
    """The four whole scans of a store, as an objective gets them."""
    opened = Store(store)
    dataset = UnlabelledDataset(load_cases(opened, opened.manifest.rows, masks=False), Crops((24, 24, 6)), seed=0)
    return batch_of(dataset.__getitems__(range(6)), 0)


@pytest.mark.parametrize("intensity", ["zscore", "percentile", "window"])
def test_the_region_is_outside_the_body_and_tissue_beside_it_is_not(
    tmp_path: Path, intensity: Literal["zscore", "percentile", "window"]
) -> None:
    given, without = (cohort(tmp_path, faces=faces, name=name) for faces, name in (("defaced", "given"), ("", "without")))
    for folder in (given, without):
        prepare(folder, tmp_path / f"store_{folder.name}", preprocess=Preprocess(intensity=intensity, window_hu=(0.0, 500.0)))
    inside = batch(tmp_path / "store_given").inside(0)[:, 0].numpy()
    assert not inside[:, *FACE].any()
    assert inside[:, (blurred() > 5) & (region() == 0)].mean() > 0.95
    assert batch(tmp_path / "store_without").inside(0)[:, 0].numpy()[:, *FACE].all()


def test_a_masked_loss_has_no_part_and_no_gradient_in_the_region(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(cohort(tmp_path), tmp_path / "store", preprocess=Preprocess())
    torch.manual_seed(0)
    encoder = ViT((8, 8, 2), in_channels=1, width=24, depth=1, heads=2)
    objective = MAE(encoder, decoder_width=16, decoder_depth=1, views=STILL)
    found: list[tuple[Tensor, Tensor]] = []

    def predict(images: Tensor, mask: PatchMask, error: float = 0) -> Tensor:
        in_face = torch.isin(mask.hidden, torch.tensor([3, 4]))[:, :, None]  # tokens (0, 1, 0) and (0, 1, 1) of 3 x 3 x 3
        found.append(((MAE.predict(objective, images, mask).detach() + error * in_face).requires_grad_(), in_face))
        return found[-1][0]

    monkeypatch.setattr(objective, "predict", predict)
    loss = objective(batch(tmp_path / "store")).total
    loss.backward()
    prediction, in_face = found[0]
    assert in_face.any() and prediction.grad is not None
    tokens = prediction.grad.abs().sum(dim=2, keepdim=True)
    assert tokens[in_face].eq(0).all() and tokens[~in_face].ne(0).any()
    monkeypatch.setattr(objective, "predict", partial(predict, error=1e3))
    assert objective(batch(tmp_path / "store")).total.equal(loss)


def test_the_region_is_left_out_of_all_sequences_that_the_scan_has(folder: Path) -> None:
    save(folder / "t1.nii.gz", blurred(1))
    image, _ = read_row(folder, ManifestRow("scan", "p", "image.nii.gz;;t1.nii.gz", defaced="face.nii.gz"))
    assert [int(channel[FACE].max()) for channel in image.array] == [5, 0, 5]
