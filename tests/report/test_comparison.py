import json

import numpy as np
import pytest

from medssl.cli import main
from medssl.errors import UsageError
from medssl.report.cases import read_results
from medssl.report.comparison import compare_runs, draw_comparison, is_from_scratch, read_others, share
from medssl.report.evidence import gather
from medssl.report.write import write_report


def cohort_of(builder, *, shift=0, noise=0.0, seed=0, count=24, skip=(), **row):
    """Scans of as many patients, one in two with lesion; `noise` spoils the scores."""
    generator = np.random.default_rng(seed)
    for index in range(count):
        label = index % 2
        score = float(np.clip(0.25 + 0.5 * label + noise * generator.normal() + 0.1 * generator.normal(), 0.01, 0.99))
        if index not in skip:
            builder.add(f"s{index:02}", score=score, label=label, patient=f"p{index:02}", shift=shift, **row)
    return builder


@pytest.fixture
def other(builder_of):
    return builder_of("other")


@pytest.fixture
def two_runs(builder, other):
    """A good model that was pretrained, and a worse one from scratch, on the same 24 scans."""
    cohort_of(builder, noise=0.2).finish(lineage=["encoder0"])
    cohort_of(other, noise=0.5, shift=2, seed=1).finish(lineage=[], model_id="scratch0")
    return builder.folder, other.folder


def record_of(folder, *others):
    evidence = gather(read_results(folder))
    record = compare_runs(evidence, read_others(others, folder, reference=None))
    json.dumps(record, allow_nan=False)
    return record


def by_name(record):
    return {(test["unit"], test["name"]): test for test in record["runs"][0]["tests"]}


def test_every_unit_is_compared(two_runs):
    found = by_name(record_of(*two_runs))
    units = [(unit, name) for unit in ("patient", "slice") for name in ("auroc", "sensitivity", "specificity")]
    assert list(found) == [*units, ("scan", "dice_with_lesion"), ("lesion", "sensitivity")]


def test_a_difference_is_this_run_minus_the_other(two_runs):
    found = by_name(record_of(*two_runs))
    for test in found.values():
        assert test["value"] == pytest.approx(test["this"] - test["other"])
    assert found["patient", "auroc"]["value"] > 0 and found["scan", "dice_with_lesion"]["value"] > 0


def test_patients_are_tested_as_independent_and_slices_by_the_bootstrap_of_patients(two_runs):
    found = by_name(record_of(*two_runs))
    assert found["patient", "auroc"]["test"] == "paired DeLong" and found["patient", "auroc"]["patients95"][0] is not None
    assert found["patient", "sensitivity"]["test"] == "McNemar, exact"
    assert {"only_this_right", "only_other_right", "p_plain", "p_corrected"} <= found["patient", "sensitivity"].keys()
    assert "bootstrap" in found["slice", "auroc"]["test"]


def test_p_values_are_adjusted_for_all_tests_together(two_runs):
    record = record_of(*two_runs)
    tests = [test for test in record["runs"][0]["tests"] if test["p"] is not None]
    assert record["n_tests"] == len(tests)
    least = min(tests, key=lambda test: test["p"])
    assert least["p_holm"] == pytest.approx(min(1, least["p"] * len(tests)))
    assert all(test["p_holm"] >= test["p"] for test in tests)


def test_a_model_without_lineage_is_from_scratch(two_runs):
    record = record_of(*two_runs)
    assert (record["this_from_scratch"], record["runs"][0]["from_scratch"]) == (False, True)
    assert not any("without pretraining, so" in note for note in record["notes"])


def test_a_comparison_without_a_model_from_scratch_says_what_is_missing(builder, other):
    cohort_of(builder).finish(lineage=["encoder0"])
    cohort_of(other, seed=1).finish(lineage=["encoder1"])
    assert any("what pretraining brings cannot be said" in note for note in record_of(builder.folder, other.folder)["notes"])


def test_an_old_run_that_names_no_lineage_is_not_taken_for_one_from_scratch(builder_of):
    old = cohort_of(builder_of("old")).finish()
    assert is_from_scratch(gather(read_results(old))) is None


def test_without_another_run_the_report_says_that_none_was_compared(two_runs):
    record = record_of(two_runs[0])
    assert record["runs"] == [] and record["n_tests"] == 0 and "--against" in record["notes"][0]
    assert draw_comparison(record) == []


def test_only_scans_that_both_scored_count_and_the_others_are_told(builder, other):
    cohort_of(builder, skip=(0, 1)).reject("s00", "truncated", label=0)
    cohort_of(other, seed=1, skip=(5,))
    record = record_of(builder.finish(), other.finish())
    run = record["runs"][0]
    assert run["n_scans"] == 21
    assert run["left_out"] == {"scored_by_this_alone": 1, "scored_by_other_alone": 2}
    assert by_name(record)["patient", "auroc"]["n"] == 21
    assert any("21 scans that both scored; left out are 1" in note for note in record["notes"])


def test_a_patient_whose_lesion_lies_on_a_scan_left_out_is_no_negative_patient(builder, other):
    for one in (builder, other):
        cohort_of(one, count=8)
        one.add("extra", score=0.2, label=0, patient="q")
    builder.add("missing", score=0.9, label=1, patient="q")
    shared = share(*(gather(read_results(one.finish())) for one in (builder, other)))
    assert next(scan.label for scan in shared.first if scan.case.scan_id == "missing") == 1
    record = record_of(builder.folder, other.folder)
    assert by_name(record)["patient", "specificity"]["n"] == 4 and by_name(record)["patient", "sensitivity"]["n"] == 5


@pytest.mark.parametrize(("change", "what"), [({"label": 1}, "label"), ({"patient": "someone"}, "patient")])
def test_another_reference_is_refused(builder, other, change, what):
    for one, row in ((builder, {}), (other, change)):
        cohort_of(one, count=4)
        one.add("x", **({"score": 0.1, "label": 0, "patient": "x", "maps": False} | row))
        one.finish()
    with pytest.raises(UsageError, match=f"the {what} of 1.*--reference"):
        record_of(builder.folder, other.folder)


def test_other_true_masks_on_one_grid_are_refused(builder, other):
    cohort_of(builder, count=4).finish()
    cohort_of(other, count=4)
    lesion = np.zeros((24, 20, 8), np.uint8)
    lesion[2:4, 2:4, 2:4] = 1
    other.save("s01", "lesion", lesion)
    other.finish()
    with pytest.raises(UsageError, match="the mask of 1 of 4"):
        record_of(builder.folder, other.folder)


def test_runs_that_share_no_scan_are_refused(builder, other):
    cohort_of(builder, count=4, skip=(2, 3)).finish()
    cohort_of(other, count=4, skip=(0, 1)).finish()
    with pytest.raises(UsageError, match="no scan with a known answer was scored here and in other"):
        record_of(builder.folder, other.folder)


def test_a_run_is_not_compared_with_itself(builder):
    cohort_of(builder, count=4).finish()
    with pytest.raises(UsageError, match="one folder twice"):
        record_of(builder.folder, builder.folder)


def test_a_run_without_a_reference_of_its_own_is_held_against_this_one(builder, other):
    cohort_of(builder, count=6).finish()
    cohort_of(other, count=6, seed=1).finish(reference=False)
    assert record_of(builder.folder, other.folder)["runs"][0]["n_scans"] == 6


def test_three_scans_make_no_confident_number(builder, other):
    for one, scores in ((builder, (0.9, 0.8, 0.1)), (other, (0.9, 0.2, 0.3))):
        for index, (score, label) in enumerate(zip(scores, (1, 1, 0), strict=True)):
            one.add(f"s{index}", score=score, label=label, patient=f"p{index}")
        one.finish()
    for test in by_name(record_of(builder.folder, other.folder)).values():
        assert test["ci95"][0] is None or test["ci95"][0] < 0 < test["ci95"][1], test
        assert test["p_holm"] is None or test["p_holm"] > 0.05


@pytest.mark.parametrize("of_a_class", [2, 3])
def test_a_model_that_is_right_on_six_patients_is_not_called_better_than_one_that_is_wrong(builder, other, of_a_class):
    for one, turned in ((builder, False), (other, True)):
        for index in range(2 * of_a_class):
            label = index % 2
            score = (0.7 if label != turned else 0.1) + 0.02 * index
            one.add(f"s{index}", score=score, label=label, patient=f"p{index}", slice_scores=[score] * 8)
        one.finish()
    record = record_of(builder.folder, other.folder)
    for test in by_name(record).values():
        assert test["p"] is None or (test["p"] > 0.03 and test["p_holm"] > 0.05), test
        assert test["name"] != "auroc" or test["ci95"] == [None, None]
        assert test["method"] != "none" or test["note"].startswith(("no interval", "an interval drawn from", "cannot be measured")), test


def test_a_model_and_its_twin_are_not_told_apart(builder, other):
    for one in (builder, other):
        cohort_of(one).finish()
    for test in by_name(record_of(builder.folder, other.folder)).values():
        assert test["value"] == 0 and test["p"] in (None, 1)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_compared_only_where_it_can_be(builder, other, label):
    for one, seed in ((builder, 0), (other, 1)):
        for index, score in enumerate(np.random.default_rng(seed).uniform(0.2, 0.8, 6)):
            one.add(f"s{index}", score=float(score), label=label, patient=f"p{index}")
        one.finish()
    found = by_name(record_of(builder.folder, other.folder))
    assert found["patient", "auroc"]["value"] is None and "cannot be measured" in found["patient", "auroc"]["note"]
    assert found["patient", "sensitivity" if label else "specificity"]["value"] is not None


def test_scores_and_slices_that_are_no_numbers_are_left_out_of_both(builder, other):
    cohort_of(builder, count=8, slice_scores=[0.1, float("nan"), *([0.2] * 6)]).finish()
    cohort_of(other, count=8, seed=1).add("odd", score=float("nan"), label=1, patient="odd")
    builder.add("odd", score=0.9, label=1, patient="odd")
    record = record_of(builder.finish(), other.finish())
    assert record["runs"][0]["n_scans"] == 8
    assert by_name(record)["slice", "auroc"]["n"] == 8 * 7


def test_without_a_locked_threshold_only_areas_are_compared(builder, other):
    cohort_of(builder).finish()
    cohort_of(other, seed=1).finish(operating_points={})
    names = [key for key in by_name(record_of(builder.folder, other.folder)) if key[0] == "slice"]
    assert names == [("slice", "auroc")]


@pytest.mark.parametrize("late", ["this", "other"])
def test_masks_and_rates_at_a_refused_threshold_are_not_compared(builder, other, late):
    for name, one in (("this", builder), ("other", other)):
        cohort_of(one, count=6).finish(started=f"{2025 if name == late else 2026}-01-02T00:00:00+00:00")
    record = record_of(builder.folder, other.folder)
    assert set(by_name(record)) == {("patient", "auroc"), ("slice", "auroc")}
    assert any("are refused, being newer than its scores" in note for note in record["notes"])


def test_scans_of_one_patient_are_tested_by_the_bootstrap_of_patients(builder, other):
    for one, seed in ((builder, 0), (other, 1)):
        cohort_of(one, seed=seed, noise=0.5 * seed).add("again", score=0.8, label=1, patient="p01")
        one.finish()
    record = record_of(builder.folder, other.folder)
    assert all("bootstrap" in by_name(record)["scan", name]["test"] for name in ("auroc", "sensitivity", "specificity"))
    assert any("25 scans are of 24 patients" in note for note in record["notes"])


def test_the_report_shows_the_comparison(two_runs, tmp_path):
    record = write_report(two_runs[0], tmp_path / "out", against=[two_runs[1]])
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Against other (scratch0), no pretraining" in page and "p (Holm" in page
    assert (tmp_path / "out" / "figures" / "comparison.png").stat().st_size > 1000
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["comparison"] == json.loads(json.dumps(record["comparison"]))
    assert not any("No comparison with another model" in note for note in record["notes"])


def test_the_name_of_another_run_is_escaped(builder, builder_of, tmp_path):
    cohort_of(builder, count=4).finish()
    hostile = cohort_of(builder_of("<script>$x"), count=4, seed=1).finish()
    write_report(builder.folder, tmp_path / "out", against=[hostile])
    assert "<script>" not in (tmp_path / "out" / "report.html").read_text()


def test_the_command_takes_several_other_runs(two_runs, builder_of, tmp_path, capsys):
    third = cohort_of(builder_of("third"), seed=2).finish(lineage=["encoder1"])
    against = ["--against", str(two_runs[1]), f"--against={third}"]
    assert main(["report", str(two_runs[0]), "--out", str(tmp_path / "out"), *against]) == 0
    runs = json.loads((tmp_path / "out" / "metrics.json").read_text())["comparison"]["runs"]
    assert [run["name"] for run in runs] == ["other (scratch0)", "third (model0123456789)"]
    assert "report.html" in capsys.readouterr().out


def test_the_command_refuses_a_folder_that_holds_no_results(builder, tmp_path, capsys):
    cohort_of(builder, count=4).finish()
    assert main(["report", str(builder.folder), "--against", str(tmp_path / "nothing")]) == 2
    assert "nothing holds no results" in capsys.readouterr().err
