"""The corpus of bad and tricky inputs beside the checkout: each case gives the class, the code and the voxels that its manifest has."""

import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from medssl.cli import main
from medssl.data.manifest import Manifest, row_warnings
from medssl.errors import ManifestError
from medssl.io.discover import check_folder, read_folder

ROOT = Path(__file__).resolve().parents[2]
ARCHIVE = ROOT.parent / "shared" / "corpus" / "corpus.tar.gz"
PAYLOADS = ("/tmp/medssl_pwned", "medssl_pwn.txt", "/tmp/medssl_pwn.txt")
BOMBS = ("nii_gz_bomb", "nii_gz_tail_bomb", "bomb_rows", "bomb_rle_dims", "bomb_deflated", "zip_bomb", "zip_many")

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not ARCHIVE.is_file(), reason="no corpus in the folder shared beside the checkout"),
]


@dataclass(frozen=True)
class Corpus:
    """The extracted corpus, its cases, and what medssl makes of each one that is read."""

    folder: Path
    cases: dict[str, dict]
    answers: dict[str, dict]
    scratch: Path  # for temporary files of the reader

    @property
    def read(self) -> dict[str, dict]:
        """The cases that are read as scans."""
        return {name: case for name, case in self.cases.items() if case["kind"] not in ("manifest_csv", "checkpoint")}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    """Extracted once; a case without read rights says nothing to root and is left out there."""
    top, scratch = tmp_path_factory.mktemp("corpus"), tmp_path_factory.mktemp("scratch")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(top, filter="fully_trusted")
    folder = top / "corpus"
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    cases = {case["id"]: case for case in manifest["cases"] if case["id"] != "perm_denied" or os.geteuid()}
    found = Corpus(folder, cases, {}, scratch)
    jobs, answers = top / "jobs.json", top / "answers.json"
    jobs.write_text(json.dumps({name: str(folder / case["path"]) for name, case in found.read.items()}))
    command = [sys.executable, str(Path(__file__).with_name("corpus_worker.py")), str(jobs), str(answers)]
    subprocess.run(command, check=True, cwd=scratch, env=os.environ | {"TMPDIR": str(scratch), "PYTHONPATH": str(ROOT)})
    found.answers.update(json.loads(answers.read_text()))
    yield found
    shutil.rmtree(top)


def wanted_volumes(case: dict) -> list[list[dict]]:
    """The lists of volumes of which one is right."""
    return [case["truth"], *([case["or_accept"]] if case.get("or_accept") else [])]


def is_same(record: dict, truth: dict) -> bool:
    if record["voxels_sha256"] not in (truth.get("sha256_any") or [truth["sha256"]]):
        return False
    if truth.get("geometry") == "ignore":
        return True
    off = np.abs(np.array(record["affine_ras"]) - truth["affine_ras"])
    across = [axis for axis in range(3) if record["shape"][axis] == 1]  # the thickness of one slice is no spacing
    return bool(np.delete(off, across, axis=1).max() < 1e-3) and record["shape"] == truth["shape"]


def are_same(records: Sequence[dict], truths: Sequence[dict]) -> bool:
    return len(records) == len(truths) and all(any(is_same(record, truth) for record in records) for truth in truths)


def problem(case: dict, records: list[dict] | None, *, alone: bool = True) -> str:
    """What is wrong with the answer to a case, empty where nothing is."""
    if records is None:
        return "crashed, hung, or went over a limit"
    used = [record for record in records if record["status"] != "rejected"]
    codes = {code for record in records for code in record["reasons"]}
    right = {case["reason"], *case["also"], *(case.get("or_reject") or [])} & codes
    if case["expected"] == "reject-with-reason":
        passed = used and not (case.get("or_accept") and are_same(used, case["or_accept"]))
        return f"passed with {codes}" if passed else "" if used or right else f"refused with {codes}"
    if not used:
        return "" if set(case.get("or_reject") or []) & codes else f"good, and refused with {codes}"
    if not any(are_same(used, truths) for truths in wanted_volumes(case)):
        return f"wrong voxels or geometry, with {codes}"
    if case["expected"] == "accept-with-warning":
        return "" if right else f"warned with {codes}"
    return f"accepted with {codes}" if alone and (codes or len(used) < len(records)) else ""


def test_every_case_gives_its_class_its_code_and_its_voxels(corpus):
    problems = {name: problem(case, corpus.answers[name]["records"]) for name, case in corpus.read.items()}
    assert {name: text for name, text in problems.items() if text} == {}


def test_members_of_a_group_have_the_same_voxels(corpus):
    groups = defaultdict(set)
    for name, case in corpus.read.items():
        if case["group"] and not case["truth"][0].get("sha256_any"):
            groups[case["group"]] |= {record["voxels_sha256"] for record in corpus.answers[name]["records"]}
    assert {group: len(hashes) for group, hashes in groups.items()} == dict.fromkeys(groups, 1)


def test_no_case_opens_a_file_outside_of_its_folder(corpus):
    libraries = [Path(sys.prefix), Path(sys.base_prefix), ROOT / "medssl", Path("/dev/null"), Path("/proc"), Path("/sys"), corpus.scratch]
    outside = {}
    for name, case in corpus.read.items():
        allowed = [*libraries, *(corpus.folder / root for root in case["roots"])]
        paths = [Path(os.path.normpath(corpus.scratch / path)) for path in corpus.answers[name]["opened"]]
        outside[name] = [str(path) for path in paths if not any(path.is_relative_to(place) for place in allowed)]
    assert {name: paths for name, paths in outside.items() if paths} == {}


def test_no_case_needs_much_memory_or_time(corpus):
    costs = {name: (answer.get("peak_mib", 0), answer.get("seconds", 0)) for name, answer in corpus.answers.items()}
    assert {name: cost for name, cost in costs.items() if cost[0] > 600 or cost[1] > (2 if name in BOMBS else 10)} == {}


def test_all_cases_side_by_side_still_give_their_answers(corpus, tmp_path):
    beside = {name: case for name, case in corpus.read.items() if not case["isolate"]}
    for root in {root for case in beside.values() for root in case["roots"]}:
        target = tmp_path / root
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (corpus.folder / root).is_dir() else shutil.copy)(corpus.folder / root, target)
    records = check_folder(tmp_path)["scans"]
    told = {name: [record for record in records if is_of(record, case)] for name, case in beside.items()}
    problems = {name: problem(case, told[name], alone=False) for name, case in beside.items()}
    assert {name: text for name, text in problems.items() if text} == {}
    assert [record["source"] for record in records if not any(record in found for found in told.values())] == []


def is_of(record: dict, case: dict) -> bool:
    return any(Path(record["source"]).is_relative_to(root) for root in case["roots"])


def table_code(path: Path, root: Path) -> str:
    """The code for which a table is refused, or the warnings of its rows."""
    try:
        manifest = Manifest.read(path, root=root)
    except ManifestError as error:
        return error.code
    return " ".join({code for row in manifest.rows for code in row_warnings(row)})


def test_every_table_is_refused_or_read_as_it_must_be(corpus):
    tables = {name: case for name, case in corpus.cases.items() if case["kind"] == "manifest_csv"}
    found = {name: table_code(corpus.folder / case["path"], corpus.folder) for name, case in tables.items()}
    assert found == {name: case["reason"] for name, case in tables.items()}


def test_a_pickled_checkpoint_is_no_model(corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (case,) = (case for case in corpus.cases.values() if case["kind"] == "checkpoint")
    scans = corpus.folder / "nifti" / "nii_int16.nii"
    assert main(["score", str(corpus.folder / case["path"]), str(scans), "--out", str(tmp_path / "results")]) == 4


def test_no_payload_ran_and_nothing_is_left_behind(corpus):
    assert [path for path in PAYLOADS if Path(path).exists()] == []
    assert list(corpus.scratch.iterdir()) == []
    assert list(corpus.folder.rglob("medssl_pwn*")) == []


# The good files whose bytes are changed, and which bytes count: changed voxels cannot be known where no checksum covers them, nor can the
# numbers that scale them (scl_slope and scl_inter of NIfTI, the rescale of DICOM).
FLIPPED = {
    "nifti/nii_int16.nii": lambda _raw: [*range(112), *range(120, 352)],
    "nifti/nii_gz.nii.gz": lambda raw: range(len(raw)),
    "dicom1/enh_multiframe.dcm": lambda raw: without_rescale(raw, len(raw) - 2 * 24 * 32 * 8),
    "dicom/dcm_jpegls": lambda raw: without_rescale(raw, raw.rindex(b"\xff\xda") + 10),
    "other/nrrd_raw.nrrd": lambda raw: range(raw.index(b"\n\n") + 2),
    "other/mha.mha": lambda raw: range(raw.index(b"LOCAL\n") + 6),
}
FLIPS = 2000


def without_rescale(raw: bytes, end: int) -> list[int]:
    """Bytes before the voxels that do not belong to a value of RescaleSlope or RescaleIntercept."""
    kept = set(range(end))
    for tag in (b"\x28\x00\x52\x10DS", b"\x28\x00\x53\x10DS"):
        at = raw.find(tag)
        while at >= 0:
            length = int.from_bytes(raw[at + 6 : at + 8], "little")
            kept -= set(range(at + 8, at + 8 + length))
            at = raw.find(tag, at + 8)
    return sorted(kept)


@pytest.mark.slow
@pytest.mark.parametrize("name", FLIPPED)
def test_a_flipped_byte_gives_a_reason_or_the_right_voxels(corpus, tmp_path, name):
    path = corpus.folder / name
    path = min(path.iterdir()) if path.is_dir() else path
    raw, target = path.read_bytes(), tmp_path / path.name
    (good,) = read_folder(path)
    places, draw, wrong = FLIPPED[name](raw), random.Random(name), []
    for _ in range(FLIPS // len(FLIPPED)):
        at, mask = draw.choice(places), draw.randrange(1, 256)
        target.write_bytes(raw[:at] + bytes([raw[at] ^ mask]) + raw[at + 1 :])
        records = [reading.record for reading in read_folder(target)]
        same = {record.voxels_sha256 for record in records} == {good.record.voxels_sha256}
        if not same and not {code for record in records for code in record.reasons} - set(good.record.reasons):
            wrong.append((at, raw[at], raw[at] ^ mask))
    assert wrong == []
