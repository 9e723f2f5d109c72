"""From a folder to a store: what is kept, what is refused, what a stopped run leaves."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medssl.data import intake
from medssl.data import prepare as prepare_module
from medssl.data.dataset import Crops, load_cases
from medssl.data.entry import Entry
from medssl.data.manifest import ManifestRow
from medssl.data.prepare import Guard, prepare
from medssl.data.preprocess import Preprocess
from medssl.data.store import Store
from medssl.data.unlabelled import UnlabelledDataset
from medssl.errors import ConflictError, ManifestError, ScanError, UsageError
from medssl.io.options import ReadOptions
from medssl.workers import Pool
from tests.data.conftest import picture, save

Files = dict[str, bytes]


@pytest.fixture
def folder(cohort: Callable[..., Path]) -> Path:
    """Ten patients that were made a while ago."""
    return settled(cohort())


def settled(folder: Path) -> Path:
    """Wait until the files are old enough to be told from files edited later."""
    time.sleep(0.12)
    return folder


def files(store: Path) -> Files:
    return {str(path.relative_to(store)): path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file()}


def test_every_scan_lands_in_the_store_with_its_mask(folder: Path, tmp_path: Path) -> None:
    manifest, rejected = prepare(folder, tmp_path / "store")
    store = Store(tmp_path / "store")
    assert (len(manifest.rows), rejected) == (10, 0)
    for row in store.manifest.rows:
        lesion = store.lesion(row)
        assert lesion is not None
        assert int(lesion[:].sum()) == 4 * int(row.has_lesion)
        assert store.image(row).shape == (1, 24, 24, 6)


def test_the_spacing_is_planned_and_thick_slices_are_kept(folder: Path, tmp_path: Path) -> None:
    prepare(folder, tmp_path / "store")
    assert Store(tmp_path / "store").preprocess == Preprocess(spacing_mm=(1.0, 1.0, 0.0))


def test_a_spacing_that_is_given_is_that_of_the_store(folder: Path, tmp_path: Path) -> None:
    manifest, _ = prepare(folder, tmp_path / "store", spacing_mm=(2.0, 2.0, 2.0))
    store = Store(tmp_path / "store")
    assert store.preprocess == Preprocess(spacing_mm=(2.0, 2.0, 2.0))
    assert store.image(manifest.rows[0]).shape == (1, 12, 12, 12)


def test_a_spacing_of_scans_without_geometry_is_refused() -> None:
    picture_row = ManifestRow(scan_id="a", patient="p", image="a.png", nominal=True)
    with pytest.raises(UsageError, match="no physical voxel size"):
        prepare_module.plan([intake.Intake(picture_row, shape=(8, 8, 1), spacing_mm=(1.0, 1.0, 1.0))], (1.0, 1.0, 1.0))


def test_sites_are_kept_and_patients_split(folder: Path, tmp_path: Path) -> None:
    manifest, _ = prepare(folder, tmp_path / "store")
    assert {row.site for row in manifest.rows} == {"A", "B"}
    assert {row.split for row in manifest.rows} == {"train", "val", "test"}


def test_what_files_tell_of_the_case_mix_fills_what_the_table_leaves_open(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "_told", lambda _: {"vendor": "GE", "sex": "F"})
    for _ in ("read", "remembered"):
        manifest, _ = prepare(folder, tmp_path / "store", workers=1)
        assert (manifest.rows[0].vendor, manifest.rows[0].sex) == ("GE", "F")


def test_one_scan_without_voxel_size_decides_for_all_and_is_told(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = folder / "p3" / "image.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine), path)
    prepare(folder, tmp_path / "store", workers=1)
    assert "1 of 10 scans have no physical voxel size, so all are brought to one matrix; see --units" in caplog.text
    prepare(folder, tmp_path / "in_mm", options=ReadOptions(units="mm"), workers=1)
    assert (Store(tmp_path / "store").preprocess.matrix, Store(tmp_path / "in_mm").preprocess.matrix) == ((24, 24), None)


def test_a_damaged_scan_is_left_out_with_its_reason(folder: Path, tmp_path: Path) -> None:
    path = folder / "p3" / "image.nii.gz"
    path.write_bytes(path.read_bytes()[:-20])
    manifest, rejected = prepare(folder, tmp_path / "store")
    assert (len(manifest.rows), rejected) == (9, 1)
    scans = json.loads((tmp_path / "store" / "intake.json").read_text())["scans"]
    assert [scan["reasons"] for scan in scans if scan["status"] == "rejected"] == [["truncated"]]


def test_a_mask_of_another_shape_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    save(folder / "p3" / "lesion.nii.gz", np.zeros((24, 24, 5), np.uint8))
    prepare(folder, tmp_path / "store")
    scans = json.loads((tmp_path / "store" / "intake.json").read_text())["scans"]
    assert [scan["reasons"] for scan in scans if scan["status"] == "rejected"] == [["label_mismatch"]]


@pytest.mark.parametrize(("moved_mm", "reasons"), [(0.05, []), (0.2, [["label_mismatch"]])])
def test_a_mask_of_another_place_is_refused_by_how_far_it_lies(folder: Path, tmp_path: Path, moved_mm: float, reasons: list[str]) -> None:
    path = folder / "p3" / "lesion.nii.gz"
    mask = nib.load(path)
    affine = mask.affine.copy()
    affine[0, 0] -= moved_mm / 23  # the far corner of 24 voxels moves so far, and no entry by more than a hundredth
    lesion = nib.Nifti1Image(np.asarray(mask.dataobj).copy(), affine)
    lesion.header.set_xyzt_units("mm")
    nib.save(lesion, path)
    prepare(folder, tmp_path / "store")
    scans = json.loads((tmp_path / "store" / "intake.json").read_text())["scans"]
    assert [scan["reasons"] for scan in scans if scan["status"] == "rejected"] == reasons


def test_nothing_is_done_twice(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(folder, tmp_path / "store")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store" / "arrays").iterdir()}
    monkeypatch.setattr(intake, "_read_parts", lambda *_: pytest.fail("a scan was read again"))
    prepare(folder, tmp_path / "store")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store" / "arrays").iterdir()} == before


def test_a_second_run_changes_no_byte(folder: Path, tmp_path: Path) -> None:
    prepare(folder, tmp_path / "store")
    before = files(tmp_path / "store")
    prepare(folder, tmp_path / "store")
    assert files(tmp_path / "store") == before


def test_more_workers_give_the_same_store(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare_module, "Pool", partial(Pool, patience_s=0.0))
    prepare(folder, tmp_path / "one", workers=1)
    prepare(folder, tmp_path / "two", workers=2)
    assert files(tmp_path / "one") == files(tmp_path / "two")


@pytest.mark.parametrize("stage", ["reading", "storing"])
def test_a_run_that_was_stopped_goes_on_where_it_was(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    prepare(folder, tmp_path / "whole")
    read: list[str] = []
    limit = 4 if stage == "reading" else 14

    def counted(*arguments: object) -> object:
        if len(read) == limit:
            raise KeyboardInterrupt
        read.append(arguments[1].scan_id)  # type: ignore[attr-defined]
        return original(*arguments)  # type: ignore[arg-type]

    original = intake._read_parts
    monkeypatch.setattr(intake, "_read_parts", counted)
    with pytest.raises(KeyboardInterrupt):
        prepare(folder, tmp_path / "store", workers=1)
    read.clear()
    limit = -1
    prepare(folder, tmp_path / "store", workers=1)
    assert len(read) == (6 + 10 if stage == "reading" else 6)
    assert files(tmp_path / "store") == files(tmp_path / "whole")


def test_a_scan_that_was_edited_is_stored_anew_and_its_old_entry_goes(folder: Path, tmp_path: Path) -> None:
    prepare(folder, tmp_path / "store")
    row = Store(tmp_path / "store").manifest.rows[2]
    old = np.array(Store(tmp_path / "store").image(row))
    save(folder / row.image, picture(99))
    manifest, _ = prepare(folder, tmp_path / "store")
    assert manifest.rows[2].sha256 != row.sha256
    assert not np.array_equal(Store(tmp_path / "store").image(manifest.rows[2]), old)
    assert len(list((tmp_path / "store" / "arrays").iterdir())) == 30


def test_a_mask_that_was_edited_is_stored_anew(folder: Path, tmp_path: Path) -> None:
    manifest, _ = prepare(folder, tmp_path / "store")
    mask = np.zeros((24, 24, 6), np.uint8)
    mask[5, 5, 5] = 1
    save(folder / manifest.rows[0].lesion, mask)
    prepare(folder, tmp_path / "store")
    lesion = Store(tmp_path / "store").lesion(manifest.rows[0])
    assert lesion is not None
    assert np.argwhere(lesion).tolist() == [[0, 5, 5, 5]]


def test_an_edit_that_keeps_size_and_time_is_seen(folder: Path, tmp_path: Path) -> None:
    path = folder / "p3" / "image.nii"
    save(path, picture(3))
    path.replace(folder / "p3" / "image.nii.gz")  # not compressed: every edit keeps the size
    settled(folder)
    before, _ = prepare(folder, tmp_path / "store")
    path, facts = folder / "p3" / "image.nii.gz", (folder / "p3" / "image.nii.gz").stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    after, _ = prepare(folder, tmp_path / "store")
    assert [row.scan_id for row, old in zip(after.rows, before.rows, strict=True) if row.sha256 != old.sha256] == [before.rows[3].scan_id]


def test_a_damaged_entry_is_made_again(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    prepare(folder, tmp_path / "store")
    before = files(tmp_path / "store")
    path = next((tmp_path / "store" / "arrays").glob("*.image.npy"))
    path.write_bytes(bytes(path.stat().st_size))
    with caplog.at_level(logging.WARNING):
        prepare(folder, tmp_path / "store")
    assert files(tmp_path / "store") == before
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [f"the store entry of scan {path.name.rsplit('-', 1)[0]} was damaged and was made again"]


def test_a_scan_that_changes_between_reading_and_storing_stops_the_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def edited(*arguments: object) -> object:
        save(folder / "p0" / "image.nii.gz", picture(50))
        return keep(*arguments)  # type: ignore[arg-type]

    keep = prepare_module.keep
    monkeypatch.setattr(prepare_module, "keep", edited)
    with pytest.raises(ScanError, match="changed_while_read"):
        prepare(folder, tmp_path / "store", workers=1)
    assert not (tmp_path / "store" / "manifest.csv").exists()


def test_with_a_known_preprocessing_each_scan_is_read_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []
    original = intake._read_parts
    monkeypatch.setattr(intake, "_read_parts", lambda *arguments: (read.append(arguments), original(*arguments))[1])
    prepare(folder, tmp_path / "store", preprocess=Preprocess(spacing_mm=(1.0, 1.0, 0.0)), workers=1)
    assert len(read) == 10


def test_what_was_learned_of_a_scan_that_is_gone_goes_too(folder: Path, tmp_path: Path) -> None:
    prepare(folder, tmp_path / "store")
    shutil.rmtree(folder / "p3")
    table = [line for line in (folder / "patients.csv").read_text().splitlines() if "p3/" not in line]
    (folder / "patients.csv").write_text("\n".join(table))
    prepare(folder, tmp_path / "store")
    left = [path.name for part in ("readings", "arrays") for path in (tmp_path / "store" / part).iterdir()]
    assert len(left) == 9 + 27
    assert [name for name in left if name.startswith("p3")] == []


def test_equal_voxels_under_two_patients_are_warned_of_and_kept_in_one_split(folder: Path, tmp_path: Path) -> None:
    shutil.copyfile(folder / "p1" / "image.nii.gz", folder / "p8" / "image.nii.gz")
    manifest, _ = prepare(folder, tmp_path / "store", guard=Guard(keep_together=True))
    scans = json.loads((tmp_path / "store" / "intake.json").read_text())["scans"]
    assert [scan["source"] for scan in scans if scan["reasons"] == ["duplicate_pixels"]] == ["p1/image.nii.gz", "p8/image.nii.gz"]
    assert len({row.split for row in manifest.rows if row.patient in ("p1", "p8")}) == 1


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """Four patients with three volumes each in a file."""
    for patient in range(4):
        save(tmp_path / "series" / f"p{patient}" / "bold.nii.gz", np.stack([picture(10 * patient + t) for t in range(3)], axis=-1))
    return settled(tmp_path / "series")


SPLIT = ReadOptions(four_d="split")


def test_volumes_of_a_file_are_scans_of_one_patient(series: Path, tmp_path: Path) -> None:
    manifest, rejected = prepare(series, tmp_path / "store", options=SPLIT)
    assert rejected == 0
    assert [(row.scan_id, row.patient, row.image) for row in manifest.rows[:2]] == [
        ("p0__bold-t000", "p0", "p0/bold.nii.gz/t000"),
        ("p0__bold-t001", "p0", "p0/bold.nii.gz/t001"),
    ]
    store = Store(tmp_path / "store")
    assert store.manifest == manifest
    assert store.preprocess.read == SPLIT
    assert store.image(manifest.rows[4]).shape == (1, 24, 24, 6)
    assert {scan["format"] for scan in json.loads((tmp_path / "store" / "intake.json").read_text())["scans"]} == {"nifti"}


def test_a_damaged_volume_is_made_again_in_the_way_that_it_was_read(series: Path, tmp_path: Path) -> None:
    manifest, _ = prepare(series, tmp_path / "store", options=SPLIT)
    before = np.array(Store(tmp_path / "store").image(manifest.rows[4]))
    for path in (tmp_path / "store" / "arrays").glob("p1__bold-t001*.image.npy"):
        path.write_bytes(bytes(path.stat().st_size))
    assert np.array_equal(Store(tmp_path / "store").image(manifest.rows[4]), before)


def test_a_store_read_in_another_way_is_another_store(series: Path, tmp_path: Path) -> None:
    prepare(series, tmp_path / "store", options=SPLIT)
    with pytest.raises(ConflictError, match="another preprocessing"):
        prepare(series, tmp_path / "store", options=ReadOptions(four_d="split", tilt="resample"))


def test_a_preprocessing_says_how_scans_are_read(series: Path, tmp_path: Path) -> None:
    manifest, _ = prepare(series, tmp_path / "store", preprocess=Preprocess(read=SPLIT))
    assert len(manifest.rows) == 12


def test_scans_in_an_archive_are_stored_like_those_in_a_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "packed").mkdir()
    for patient in range(4):
        shutil.make_archive(str(tmp_path / "packed" / f"p{patient}"), "zip", folder / f"p{patient}")
    (tmp_path / "packed" / "broken.zip").write_bytes(b"PK\x03\x04" + bytes(40))
    manifest, rejected = prepare(tmp_path / "packed", tmp_path / "store")
    assert [(row.patient, row.image, row.lesion) for row in manifest.rows[:1]] == [("p0", "p0.zip/image.nii.gz", "p0.zip/lesion.nii.gz")]
    assert (len(manifest.rows), rejected) == (4, 1)
    assert [row.has_lesion for row in manifest.rows] == ["0", "1", "0", "1"]
    scans = json.loads((tmp_path / "store" / "intake.json").read_text())["scans"]
    assert [(scan["source"], scan["reasons"]) for scan in scans if scan["status"] == "rejected"] == [("broken.zip", ["corrupt_archive"])]


PROCESS = """
import functools, sys
from pathlib import Path
from medssl.data import prepare
if __name__ == "__main__":
    prepare.Pool = functools.partial(prepare.Pool, patience_s=0.0)
    prepare.prepare(Path(sys.argv[1]), Path(sys.argv[2]), workers=2)
"""


def started(folder: Path, out: Path, script: Path) -> "subprocess.Popen[bytes]":
    script.write_text(PROCESS)
    return subprocess.Popen(
        [sys.executable, str(script), str(folder), str(out)], stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": "."}
    )


@pytest.mark.slow
def test_two_processes_fill_one_store(folder: Path, tmp_path: Path) -> None:
    prepare(folder, tmp_path / "alone")
    both = [started(folder, tmp_path / "store", tmp_path / f"run{number}.py") for number in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    assert files(tmp_path / "store") == files(tmp_path / "alone")


@pytest.mark.slow
def test_a_killed_run_leaves_no_process_and_no_half_file(cohort: Callable[..., Path], tmp_path: Path) -> None:
    folder = settled(cohort(40))
    prepare(folder, tmp_path / "whole", workers=1)
    generator = np.random.default_rng(0)
    for number in range(4):
        run = started(folder, tmp_path / "store", tmp_path / "run.py")
        while not (tmp_path / "store" / "readings").is_dir():
            time.sleep(0.01)
        time.sleep(float(generator.uniform(0, 0.4)))
        workers = children(run.pid)
        run.send_signal(signal.SIGKILL)
        run.wait()
        until = time.monotonic() + 20
        while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < until:
            time.sleep(0.05)
        assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()], number
    prepare(folder, tmp_path / "store", workers=1)
    assert files(tmp_path / "store") == files(tmp_path / "whole")


PEAK = """
import functools, resource, sys
from pathlib import Path
from medssl.data import prepare
if __name__ == "__main__":
    prepare.Pool = functools.partial(prepare.Pool, patience_s=0.0)
    prepare.prepare(Path(sys.argv[1]), Path(sys.argv[2]), workers=2)
    print(*(resource.getrusage(who).ru_maxrss // 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
"""


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_number_of_scans(tmp_path: Path) -> None:
    """Each scan is 1 MB as float32: 200 of them in memory would be seen."""
    (tmp_path / "run.py").write_text(PEAK)
    peaks = []
    for number in range(200):
        save(tmp_path / "all" / f"p{number}" / "image.nii", picture(number, (80, 80, 40)))
        if number == 9:
            shutil.copytree(tmp_path / "all", tmp_path / "few")
    for name in ("few", "all"):
        command = [sys.executable, str(tmp_path / "run.py"), str(tmp_path / name), str(tmp_path / f"{name}-store")]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": "."})
        peaks.append([int(word) for word in done.stdout.split()[-2:]])
    assert all(many - few < 25 for few, many in zip(*peaks, strict=True)), peaks


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_store_of_another_preprocessing_is_not_mixed(folder: Path, tmp_path: Path) -> None:
    prepare(folder, tmp_path / "store")
    with pytest.raises(ConflictError, match="another preprocessing"):
        prepare(folder, tmp_path / "store", preprocess=Preprocess(spacing_mm=(2.0, 2.0, 0.0)))


def test_another_folder_does_not_take_the_place_of_the_scans_of_a_store(cohort: Callable[..., Path], tmp_path: Path) -> None:
    prepare(cohort(name="one"), tmp_path / "store")
    before = files(tmp_path / "store" / "arrays")
    with pytest.raises(ConflictError, match="holds scans of another folder and none of these"):
        prepare(cohort(name="two", first=100), tmp_path / "store")
    assert files(tmp_path / "store" / "arrays") == before


def test_a_folder_that_was_moved_is_gone_on_with(folder: Path, tmp_path: Path) -> None:
    prepare(folder, tmp_path / "store")
    before = files(tmp_path / "store" / "arrays")
    folder.rename(tmp_path / "moved")
    prepare(tmp_path / "moved", tmp_path / "store")
    assert files(tmp_path / "store" / "arrays") == before


def test_scans_that_a_store_loses_are_counted(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    prepare(folder, tmp_path / "store")
    (folder / "p3" / "image.nii.gz").unlink()
    with caplog.at_level(logging.WARNING):
        prepare(folder, tmp_path / "store")
    assert "1 scans that store held are not usable in the folder any more and were removed from it" in caplog.messages


def test_a_process_that_stores_nothing_but_a_record_is_not_trusted(folder: Path, tmp_path: Path) -> None:
    """The record of a scan comes last, so arrays without it count as not there."""
    manifest, _ = prepare(folder, tmp_path / "store")
    store = Store(tmp_path / "store")
    entry = store.entry(manifest.rows[0])
    next((tmp_path / "store" / "arrays").glob(f"{entry.scan_id}-*.json")).unlink()
    assert Entry.read(tmp_path / "store", entry.scan_id, entry.key) is None
    prepare(folder, tmp_path / "store")
    assert Entry.read(tmp_path / "store", entry.scan_id, entry.key) == replace(entry)


def test_a_folder_without_a_usable_scan_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.nii.gz").write_bytes(b"no scan")
    with pytest.raises(ManifestError, match="no usable scan"):
        prepare(tmp_path / "scans", tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_scan_that_lacks_a_sequence_has_a_constant_channel_that_is_not_present(tmp_path: Path) -> None:
    for patient in range(4):
        for number, name in enumerate(["flair", "t1", "t2"]):
            save(tmp_path / "scans" / f"p{patient}" / f"{name}.nii.gz", picture(10 * patient + number), (1.0, 1.0, 1.0))
    paths = ["p0/flair.nii.gz;p0/t1.nii.gz;p0/t2.nii.gz", "p1/flair.nii.gz;;p1/t2.nii.gz", ";p2/t1.nii.gz;p2/t2.nii.gz", ";;p3/t2.nii.gz"]
    lines = ["patient,split,image", *(f"p{patient},train,{path}" for patient, path in enumerate(paths))]
    (tmp_path / "scans" / "patients.csv").write_text("\n".join(lines))
    preprocess = Preprocess(spacing_mm=(1.5, 1.5, 1.5), intensity="window", window_hu=(-160.0, 240.0))
    manifest, refused = prepare(tmp_path / "scans", tmp_path / "store", preprocess=preprocess, workers=1)
    store = Store(tmp_path / "store")
    present = {row.patient: store.entry(row).present for row in store.manifest.rows}
    assert (len(manifest.rows), refused) == (4, 0)
    assert present == {"p0": (True, True, True), "p1": (True, False, True), "p2": (False, True, True), "p3": (False, False, True)}
    warned = {scan["source"]: scan["reasons"] for scan in json.loads((tmp_path / "store" / "intake.json").read_text())["scans"]}
    assert [warned[path] for path in paths] == [[], *[["missing_sequence"]] * 3]
    dataset = UnlabelledDataset(load_cases(store, manifest.rows, masks=False), Crops((8, 8, 4)), seed=0)
    batch = dataset.__getitems__(range(20))
    assert not batch["present"].all()
    varies = (batch["image"] != batch["image"][..., :1, :1, :1]).flatten(3).any(dim=3)
    assert varies.equal(batch["present"])


def test_a_report_reaches_the_data_set_and_nothing_but_the_manifest(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = folder / "patients.csv"
    header, *lines = table.read_text().splitlines()
    table.write_text("\n".join([f"{header},report", *(f'{line},"Secret finding, stable."' for line in lines)]))
    prepare(folder, tmp_path / "store", workers=1)
    store = Store(tmp_path / "store")
    sample = UnlabelledDataset(load_cases(store, store.manifest.rows, masks=False), Crops((8, 8)), seed=0, text_bytes=256)[0]
    assert bytes(sample["text"].tolist()).rstrip(b"\0") == b"Secret finding, stable."
    holding = [path.name for path in (tmp_path / "store").rglob("*") if path.is_file() and b"Secret" in path.read_bytes()]
    assert holding == ["manifest.csv"]
    assert "Secret" not in caplog.text


def save_map(path: Path, values: np.ndarray, *, spacing_mm: float = 1.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(values.astype(np.float32), np.diag([spacing_mm, 1.0, 1.0, 1.0]))
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def test_maps_of_values_below_one_half_are_not_taken_for_equal(tmp_path: Path) -> None:
    for number in range(2):
        save_map(tmp_path / "scans" / f"p{number}" / "adc.nii.gz", np.random.default_rng(number).uniform(0, 0.4, (16, 16, 6)))
    manifest, _ = prepare(tmp_path / "scans", tmp_path / "store")
    assert len({row.sha256 for row in manifest.rows}) == 2


@pytest.mark.parametrize(("factor", "spacing_mm"), [(2.0, 1.0), (1.0, 2.0)])
def test_a_scan_whose_small_values_or_place_changed_is_stored_anew(tmp_path: Path, factor: float, spacing_mm: float) -> None:
    values, store = np.random.default_rng(0).uniform(0, 0.2, (16, 16, 6)), tmp_path / "store"
    values[4:8, 4:8] = 0.2
    save_map(tmp_path / "scans" / "p0" / "adc.nii.gz", values)
    preprocess = Preprocess(spacing_mm=(1.0, 1.0, 1.0), intensity="window", window_hu=(0.0, 1.0))
    prepare(tmp_path / "scans", store, preprocess=preprocess)
    before = np.array(Store(store).image(Store(store).manifest.rows[0]))
    save_map(tmp_path / "scans" / "p0" / "adc.nii.gz", values * factor, spacing_mm=spacing_mm)
    prepare(tmp_path / "scans", store, preprocess=preprocess)
    after = np.array(Store(store).image(Store(store).manifest.rows[0]))
    assert before.shape != after.shape or not np.allclose(before, after)
