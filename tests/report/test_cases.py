import numpy as np
import pytest

from medssl.errors import ManifestError, ScanError, UsageError
from medssl.report.cases import read_classes, read_maps, read_reference, read_results


def table(folder, text, encoding="utf-8"):
    path = folder / "truth.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_findings_and_truth_are_joined_by_scan_id(cohort):
    results = read_results(cohort.finish())
    assert len(results.cases) == 17
    assert {case.truth.label for case in results.cases} == {0, 1}
    assert [case.scan_id for case in results.cases if case.rejected] == ["bad_0"]


def test_spellings_of_a_patient_are_one_patient(tmp_path):
    truths = read_reference(table(tmp_path, "scan_id,patient,label\na,Pat 3,1\nb,pat3,0\nc,,0\nd,,1\n"), roots=[tmp_path])
    assert [truth.patient for truth in truths.values()] == ["Pat 3", "Pat 3", "", ""]


def test_a_folder_without_findings_is_refused_and_says_what_to_give(tmp_path):
    with pytest.raises(UsageError, match="medssl score"):
        read_results(tmp_path)


def test_results_that_are_not_finished_are_refused(cohort):
    with pytest.raises(UsageError, match="the scoring of .* was stopped or is still running"):
        read_results(cohort.finish(finished=""))


def test_a_reference_that_is_not_there_is_refused(cohort):
    with pytest.raises(UsageError, match="nowhere.csv"):
        read_results(cohort.finish(), reference=cohort.folder / "nowhere.csv")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("scan_id,patient\na,p\n", "missing_column"),
        ("scan_id,label\n", "no_rows"),
        ("scan_id,label\na,yes\n", "bad_label"),
        ("scan_id,label\na,1,2\n", "bad_row"),
        ("scan_id,label,site\na,1\n", "bad_row"),
        ("scan_id,label\na,1\na,0\n", "conflicting_rows"),
        ("scan_id,label,lesion\na,1,../secret.nii.gz\n", "path_escape"),
        ("scan_id,label,lesion\na,1,/etc/passwd\n", "path_escape"),
        ("scan_id,label,lesion\na,1,maps/none.nii.gz\n", "not_found"),
    ],
)
def test_a_reference_that_cannot_be_used_is_refused_by_code(tmp_path, text, code):
    with pytest.raises(ManifestError) as caught:
        read_reference(table(tmp_path, text), roots=(tmp_path,))
    assert caught.value.code == code
    assert str(tmp_path) not in str(caught.value)


def test_a_reference_that_is_not_utf8_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="encoding"):
        read_reference(table(tmp_path, "scan_id,label,site\na,1,Köln\n", "latin-1"), roots=(tmp_path,))


def test_a_reference_needs_only_scan_id_and_label(tmp_path):
    truth = read_reference(table(tmp_path, "scan_id,label\na,\nb,1\n"), roots=(tmp_path,))
    assert (truth["a"].label, truth["b"].label, truth["b"].patient) == (None, 1, "")


def test_a_text_that_was_kept_from_being_a_formula_is_read_as_it_was(tmp_path):
    truth = read_reference(table(tmp_path, "scan_id,label,site,patient\na,1,'=1+1,'-p\n"), roots=(tmp_path,))
    assert (truth["a"].site, truth["a"].patient) == ("=1+1", "-p")


def test_a_link_does_not_lead_out_of_the_folder(tmp_path):
    inside = tmp_path / "results"
    inside.mkdir()
    (tmp_path / "outside.nii.gz").write_bytes(b"x")
    (inside / "link.nii.gz").symlink_to(tmp_path / "outside.nii.gz")
    with pytest.raises(ManifestError, match="path_escape"):
        read_reference(table(inside, "scan_id,label,lesion\na,1,link.nii.gz\n"), roots=(inside,))


def test_a_finding_that_is_not_named_after_its_scan_is_refused(cohort):
    finding = cohort.folder / "scans" / "pos_0.json"
    finding.write_text(finding.read_text().replace('"pos_0"', '"../../secret"'))
    with pytest.raises(ManifestError, match=r"scans/pos_0\.json"):
        read_results(cohort.finish())


@pytest.mark.parametrize("kind", ["mask", "true_classes"])
def test_a_map_that_is_a_link_does_not_lead_out_of_the_folder(cohort, kind):
    secret, link = cohort.folder.parent / "secret.nii.gz", cohort.folder / "maps" / f"pos_0_{kind}.nii.gz"
    cohort.save("pos_0", "mask", np.ones((24, 20, 8), np.uint8))
    (cohort.folder / "maps" / "pos_0_mask.nii.gz").rename(secret)
    link.symlink_to(secret)
    case = next(case for case in read_results(cohort.finish()).cases if case.scan_id == "pos_0")
    with pytest.raises(ScanError, match="path_escape"):
        read_classes(cohort.folder, case) if kind == "true_classes" else read_maps(cohort.folder, case, image=False)


def test_maps_are_read_in_a_folder_that_is_itself_a_link(cohort, tmp_path):
    (tmp_path / "linked").symlink_to(cohort.finish())
    case = next(case for case in read_results(tmp_path / "linked").cases if case.scan_id == "pos_0")
    assert read_maps(tmp_path / "linked", case, image=False).mask is not None


def test_maps_are_read_on_one_grid(cohort):
    case = next(case for case in read_results(cohort.finish()).cases if case.scan_id == "pos_0")
    maps = read_maps(cohort.folder, case, image=True)
    assert maps.image.shape == maps.lesion.shape == maps.mask.shape
    assert maps.spacing_mm == (2, 2, 4)


def test_a_true_mask_on_another_grid_is_named(cohort):
    cohort.save("pos_0", "lesion", np.zeros((3, 3, 3), np.uint8))
    case = next(case for case in read_results(cohort.finish()).cases if case.scan_id == "pos_0")
    with pytest.raises(ScanError, match="size_mismatch"):
        read_maps(cohort.folder, case, image=False)
