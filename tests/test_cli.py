"""The commands as a user types them: what they print, what they leave, how they end."""

import errno
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess

import nibabel as nib
import numpy as np
import pytest

from medssl.cli import main
from medssl.data.preprocess import Preprocess
from medssl.data.store import Store
from medssl.io.options import ReadOptions
from medssl.io.record import ScanRecord
from medssl.io.sources import Source
from medssl.models.bundle import Bundle
from medssl.models.inference import Window
from medssl.models.residual_unet import ResidualUNet
from medssl.workers import Crash, Pool


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    network = ResidualUNet(widths=(2, 4))
    points: dict[str, dict[str, object]] = {"scan": {"threshold": 0.5, "rule": "youden"}}
    written = Bundle("segmentation", network.architecture(), Preprocess(), Window((8, 8), flips=False), operating_points=points)
    written.write(tmp_path / "bundle", network, "")
    return tmp_path / "bundle"


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """One good scan and one that is cut short."""
    folder = tmp_path / "scans"
    folder.mkdir()
    array = np.random.default_rng(0).integers(0, 100, (8, 8, 4)).astype(np.int16)
    nib.save(nib.Nifti1Image(array, np.diag([1, 1, 3, 1])), folder / "good.nii.gz")
    (folder / "bad.nii.gz").write_bytes((folder / "good.nii.gz").read_bytes()[:200])
    return folder


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr().err
    assert captured.startswith("medssl: ")
    assert captured.count("\n") == 1
    return captured


def test_a_bad_scan_is_rejected_and_the_rest_goes_on(bundle: Path, scans: Path, tmp_path: Path) -> None:
    assert main(["score", str(bundle), str(scans), "--out", str(tmp_path / "results")]) == 1
    rows = (tmp_path / "results" / "results.csv").read_text().splitlines()
    assert [row.split(",")[1] for row in rows[1:]] == ["rejected", "scored"]


def test_a_command_to_copy_is_quoted(bundle: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["score", str(bundle), str(scans), "--out", str(tmp_path / "my results")])
    assert f"medssl review '{tmp_path}/my results'" in capsys.readouterr().out


def test_scoring_again_changes_nothing(bundle: Path, scans: Path, tmp_path: Path) -> None:
    arguments = ["score", str(bundle), str(scans), "--out", str(tmp_path / "results")]
    main(arguments)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "results" / "scans").iterdir()}
    main(arguments)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "results" / "scans").iterdir()} == before


def test_check_ends_with_1_when_a_scan_is_rejected(scans: Path, tmp_path: Path) -> None:
    assert main(["check", str(scans), "--report", str(tmp_path / "report.json")]) == 1
    assert (tmp_path / "report.json").is_file()


def test_check_says_the_same_with_any_number_of_processes(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medssl.workers.Pool", partial(Pool, patience_s=0.0))
    for workers in "12":
        main(["check", str(scans), "--report", str(tmp_path / workers), "--workers", workers])
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_a_process_that_dies_costs_its_scan_only(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spread(_: Pool, function: Callable[[Source], ScanRecord], tasks: Sequence[Source]) -> Iterator[tuple[int, ScanRecord | Crash]]:
        return iter([(1, function(tasks[1])), (0, Crash())])

    monkeypatch.setattr(Pool, "spread", spread)
    assert main(["check", str(scans), "--report", str(tmp_path / "report.json")]) == 1
    found = json.loads((tmp_path / "report.json").read_text())["scans"]
    assert [(scan["source"], scan["status"], scan["reasons"]) for scan in found] == [
        ("bad.nii.gz", "rejected", ["decoder_crashed"]),
        ("good.nii.gz", "accepted", []),
    ]


@pytest.mark.parametrize("command", ["check", "prepare", "score"])
def test_a_missing_folder_is_exit_code_2(command: str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = [str(bundle)] if command == "score" else []
    rest = ["--out", str(tmp_path / "out")] if command != "check" else []
    assert main([command, *first, str(tmp_path / "nowhere"), *rest]) == 2
    assert "not_found" in one_line(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("seed", ["-1", "4294967296"])
def test_a_seed_out_of_range_is_exit_code_2(seed: str, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", str(scans), "--out", str(tmp_path / "out"), "--seed", seed]) == 2
    assert "seed must be" in one_line(capsys)


@pytest.mark.parametrize("command", ["prepare", "score"])
def test_an_empty_folder_is_exit_code_2(command: str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    first = [str(bundle)] if command == "score" else []
    assert main([command, *first, str(tmp_path / "empty"), "--out", str(tmp_path / "out")]) == 2
    assert "empty" in one_line(capsys)
    assert not (tmp_path / "out").exists()


def test_a_bundle_of_another_version_is_exit_code_4(bundle: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (bundle / "bundle.json").read_text().replace('"format": 1', '"format": 2')
    (bundle / "bundle.json").write_text(text)
    assert main(["score", str(bundle), str(scans), "--out", str(tmp_path / "out")]) == 4
    assert "format 2" in one_line(capsys)
    assert not (tmp_path / "out").exists()


def test_a_bundle_that_is_not_there_is_exit_code_2(scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", str(tmp_path / "nowhere"), str(scans), "--out", str(tmp_path / "out")]) == 2
    assert "RUN/bundle" in one_line(capsys)


def test_results_of_another_model_are_exit_code_3(bundle: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text('{"model_id": "other"}')
    assert main(["score", str(bundle), str(scans), "--out", str(tmp_path / "out")]) == 3
    assert "belongs to model other" in one_line(capsys)


def test_an_unknown_option_is_exit_code_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["check", str(tmp_path), "--repport", "x"]) == 2
    assert "repport" in one_line(capsys)


def test_an_unknown_config_key_is_exit_code_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seeed: 3\n")
    assert main(["pretrain", "--config", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "run")]) == 2
    assert "seeed" in one_line(capsys)
    assert not (tmp_path / "run").exists()


def test_an_unknown_command_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scor"]) == 2
    assert "no command 'scor'" in one_line(capsys)


def test_a_full_disk_is_exit_code_5(
    bundle: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> Path:
        raise OSError(28, "no space")

    monkeypatch.setattr(Path, "replace", full)
    assert main(["score", str(bundle), str(scans), "--out", str(tmp_path / "out")]) == 5
    assert "no space" in one_line(capsys)
    assert not any((tmp_path / "out").rglob("*.*"))


def test_a_folder_that_cannot_be_listed_is_exit_code_2_and_named_without_its_path(
    scans: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> list[ScanRecord]:
        raise PermissionError(errno.EACCES, "Permission denied", str(scans))

    monkeypatch.setattr("medssl.io.read_all.read_all", refused)
    assert main(["check", str(scans)]) == 2
    line = one_line(capsys)
    assert "scans: Permission denied" in line
    assert str(scans) not in line


def test_a_demo_into_a_file_is_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file.csv").touch()
    assert main(["demo", "--preset", "smoke", "--out", str(tmp_path / "file.csv")]) == 2
    assert "Not a directory" in one_line(capsys)


def test_a_report_that_cannot_be_written_is_exit_code_2(scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["check", str(scans), "--report", str(tmp_path / "file" / "below" / "report.json")]) == 2
    assert "cannot write report.json" in one_line(capsys)


@pytest.mark.parametrize(
    ("command", "stage", "told"),
    [
        ("pretrain", "medssl.training.launch.launch", "--resume true"),
        ("check", "medssl.io.read_all.read_all", "same command again"),
        ("demo", "medssl.demo.run_demo", "another --out"),
    ],
)
def test_ctrl_c_is_exit_code_130_and_says_how_to_go_on(
    command: str, stage: str, told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, stop)
    assert main([command, *(["folder"] if command == "check" else [])]) == 130
    assert told in one_line(capsys)


def test_review_of_a_folder_without_results_says_what_to_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["review", str(tmp_path)]) == 2
    assert "medssl score" in one_line(capsys)


def test_the_app_asks_for_no_address_and_shows_no_advertisement(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    (tmp_path / "run.json").write_text("{}")
    monkeypatch.setattr("subprocess.run", lambda command, **_: commands.append(command) or CompletedProcess(command, 0))
    assert main(["review", str(tmp_path), "--port", "8599"]) == 0
    assert {"--server.showEmailPrompt=false", "--logger.hideWelcomeMessage=true"} <= set(commands[0])
    assert "http://127.0.0.1:8599" in capsys.readouterr().out


@pytest.mark.parametrize("port", ["0", "-1", "99999"])
def test_a_port_that_there_is_not_is_exit_code_2(port: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["review", str(tmp_path), "--port", port]) == 2
    assert "--port takes a number from 1 to 65535" in one_line(capsys)


def test_an_app_that_ends_by_itself_is_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run.json").write_text("{}")
    monkeypatch.setattr("subprocess.run", lambda command, **_: CompletedProcess(command, 1))
    assert main(["review", str(tmp_path)]) == 2
    assert "another --port" in one_line(capsys)


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """Three volumes in one file."""
    folder = tmp_path / "series"
    folder.mkdir()
    array = np.random.default_rng(0).integers(0, 100, (8, 8, 4, 3)).astype(np.int16)
    nib.save(nib.Nifti1Image(array, np.diag([1, 1, 3, 1])), folder / "bold.nii.gz")
    return folder


def test_check_splits_volumes_when_asked_for(series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(series)]) == 1
    assert "not_3d" in capsys.readouterr().out
    assert main(["check", str(series), "--four-d", "split", "--report", str(tmp_path / "report.json")]) == 0
    scans = json.loads((tmp_path / "report.json").read_text())["scans"]
    assert [scan["scan_id"] for scan in scans] == ["bold-t000", "bold-t001", "bold-t002"]


def test_score_reads_scans_as_the_bundle_was_trained(bundle: Path, series: Path, tmp_path: Path) -> None:
    trained = Bundle.read(bundle)
    chosen = replace(trained, preprocess=Preprocess(read=ReadOptions(four_d="split")))
    chosen.write(tmp_path / "chosen", trained.load(bundle), "")
    assert main(["score", str(bundle), str(series), "--out", str(tmp_path / "one")]) == 1
    assert main(["score", str(tmp_path / "chosen"), str(series), "--out", str(tmp_path / "three")]) == 0
    assert len((tmp_path / "three" / "results.csv").read_text().splitlines()) == 4


def test_a_bundle_and_another_way_of_reading_exclude_each_other(
    bundle: Path, series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["prepare", str(series), "--out", str(tmp_path / "out"), "--like", str(bundle), "--four-d", "split"]
    assert main(arguments) == 2
    assert "leave out --four-d" in one_line(capsys)


def test_a_store_has_the_spacing_that_was_typed(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "scans").mkdir()
    values = np.random.default_rng(0).integers(0, 100, (8, 8, 4)).astype(np.int16)
    scan = nib.Nifti1Image(values, np.eye(4))
    scan.header.set_xyzt_units("mm")
    nib.save(scan, tmp_path / "scans" / "one.nii.gz")
    arguments = ["prepare", str(tmp_path / "scans"), "--out", str(tmp_path / "out"), "--spacing-mm", "[2,2,0]"]
    assert main(arguments) == 0
    assert Store(tmp_path / "out").preprocess.spacing_mm == (2, 2, 0)
    capsys.readouterr()
    assert main([*arguments, "--like", str(bundle)]) == 2
    assert "leave out --spacing-mm" in one_line(capsys)


def test_an_unknown_choice_is_exit_code_2(series: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(series), "--tilt", "straight"]) == 2
    assert "tilt" in one_line(capsys)


@pytest.fixture
def store(tmp_path: Path, bundle: Path) -> Path:
    """Four prepared MR scans, two with a lesion, all for testing."""
    lines = ["patient,image,lesion,split,modality"]
    for number in range(4):
        array = np.random.default_rng(number).integers(0, 100, (8, 8, 4)).astype(np.int16)
        lesion = np.zeros_like(array)
        lesion[2:5, 2:5, 1] = number % 2
        for name, part in (("image", array), ("lesion", lesion)):
            nib.save(nib.Nifti1Image(part, np.diag([1, 1, 3, 1])), tmp_path / f"{name}{number}.nii.gz")
        lines.append(f"p{number},image{number}.nii.gz,lesion{number}.nii.gz,test,MR")
    (tmp_path / "patients.csv").write_text("\n".join(lines))
    assert main(["prepare", str(tmp_path), "--out", str(tmp_path / "store"), "--like", str(bundle)]) == 0
    return tmp_path / "store"


def test_evaluate_leaves_robustness_that_a_later_report_keeps(bundle: Path, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["evaluate", str(bundle), str(store), "--out", str(out), "--robustness", "true", "--scans", "3"]) == 0
    first = json.loads((out / "metrics.json").read_text())["robustness"]
    assert (first["panel"]["scans"], first["panel"]["of_scans"], first["panel"]["not_done"]) == (3, 4, 0)
    assert len(first["panel"]["conditions"]) == 8 * 5  # what can happen to MR
    assert main(["report", str(out)]) == 0
    assert json.loads((out / "metrics.json").read_text())["robustness"] == first
    assert "Robustness" in (out / "report.html").read_text()


def test_a_damaged_store_is_exit_code_2(bundle: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (store / "store.json").write_text("{}")
    capsys.readouterr()
    assert main(["evaluate", str(bundle), str(store), "--out", str(tmp_path / "out")]) == 2
    assert "damaged" in one_line(capsys)


@pytest.mark.parametrize("wrong", [["--scans", "3"], ["--robustness", "true", "--scans", "0"]])
def test_a_number_of_scans_that_means_nothing_is_exit_code_2(
    bundle: Path, tmp_path: Path, wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(bundle), str(tmp_path), "--out", str(tmp_path / "out"), *wrong]) == 2
    assert "--scans" in one_line(capsys)
