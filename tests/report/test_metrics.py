import csv
import io
import json
from pathlib import Path

import pytest

from medssl.evaluation.classification import NAMES
from medssl.evaluation.intervals import wilson
from medssl.report.cases import read_results
from medssl.report.document import render
from medssl.report.evidence import gather
from medssl.report.examples import choose_examples
from medssl.report.export import scans_csv
from medssl.report.metrics import build_metrics


def metrics(builder, **run):
    record = build_metrics(gather(read_results(builder.finish(**run))))
    json.dumps(record, allow_nan=False)
    return record


def test_every_unit_has_the_ten_numbers_in_one_form(cohort):
    record = metrics(cohort)
    for unit in ("patient", "scan", "slice", "lesion"):
        for name in NAMES:
            assert {"value", "ci95", "method", "k", "n"} <= record[unit][name].keys()


def test_scans_are_counted_and_given_wilson_intervals(cohort):
    record = metrics(cohort)["scan"]
    assert record["counts"] == {"tp": 6, "fn": 2, "fp": 1, "tn": 7}
    assert record["sensitivity"]["value"] == 0.75
    assert record["sensitivity"]["ci95"] == pytest.approx(list(wilson(6, 8)))
    assert (record["specificity"]["k"], record["specificity"]["n"]) == (7, 8)
    assert record["auroc"]["method"] == "Newcombe score" and "only 8 scans: no conclusion" in record["auroc"]["note"]


def test_scans_of_one_patient_get_the_interval_drawn_by_patient_beside(cohort):
    record = metrics(cohort)
    assert record["scan"]["n_patients"] == 14
    assert len(record["scan"]["accuracy"]["patients95"]) == 2
    assert any("16 scans are of 14 patients" in note for note in record["notes"])


def test_slices_are_drawn_by_patient_with_wilson_beside(cohort):
    found = metrics(cohort)["slice"]["specificity"]
    assert "bootstrap of patients" in found["method"] and len(found["wilson95"]) == 2


def test_lesions_have_no_specificity(cohort):
    record = metrics(cohort)["lesion"]
    assert record["specificity"]["value"] is None and "cannot be measured" in record["specificity"]["note"]
    assert (record["recall"]["k"], record["recall"]["n"]) == (6, 8)
    assert record["precision"]["n"] == 7
    assert record["precision"] == record["ppv"] and record["recall"] == record["sensitivity"]


def test_the_flow_tells_of_every_scan(cohort):
    flow = metrics(cohort)["flow"]
    assert (flow["found"], flow["rejected"], flow["scored"]) == (17, 1, 16)
    assert flow["rejected_by_code"] == {"missing_slice": 1}
    assert flow["analysed"] == {"patient": 14, "scan": 16, "slice": 128, "segmentation": 16}
    assert (flow["intention_to_score"]["sensitivity"]["k"], flow["intention_to_score"]["sensitivity"]["n"]) == (6, 9)


def test_every_stage_of_the_flow_is_counted_class_by_class(cohort):
    cohort.add("unknown_0", score=0.9)
    cohort.add("silent_0", score=float("nan"), label=0)
    flow = metrics(cohort)["flow"]
    assert (flow["readable"], flow["eligible"]) == (18, 17)
    stages = ("found", "rejected", "readable", "eligible", "scored", "analysed")
    assert {name: tuple(counts.values()) for name, counts in flow["by_class"].items()} == {
        "lesion": (9, 1, 8, 8, 8, 8),
        "no lesion": (9, 0, 9, 9, 8, 8),
        "unknown": (1, 0, 1, 0, 1, 0),
    }
    assert all(tuple(counts) == stages for counts in flow["by_class"].values())


def test_segmentation_leaves_out_two_empty_masks_and_keeps_a_miss_as_zero(cohort):
    record = metrics(cohort)["segmentation"]
    assert record["excluded_both_empty"] == 7
    assert record["summary"]["dice"]["n"] == 9
    assert record["summary"]["dice_with_lesion"]["n"] == 8
    assert next(scan for scan in record["per_scan"] if scan["scan_id"] == "pos_7")["dice"] == 0


def test_the_operating_point_is_the_locked_one(cohort):
    point = metrics(cohort)["operating_point"]
    assert (point["threshold"], point["rule"], point["chosen_on"], point["locked_at"][:10]) == (0.5, "youden", "validation", "2026-01-01")
    assert set(point["by_unit"]) == {"scan", "slice", "voxel"}


@pytest.mark.parametrize("unit", ["patient", "scan", "slice", "lesion"])
def test_rates_at_an_operating_point_newer_than_the_scores_are_refused(cohort, unit):
    record = metrics(cohort, started="2025-01-01T00:00:00+00:00")
    assert record[unit]["sensitivity"]["value"] is None and "refused" in record[unit]["sensitivity"]["note"]
    assert record[unit]["f1"]["value"] is None
    assert any(note.startswith("Rates of") and "refused" in note for note in record["notes"])


@pytest.mark.parametrize("unit", ["voxel", "lesion"])
def test_everything_that_rests_on_a_refused_threshold_of_masks_or_lesions_is_refused(cohort, unit):
    late = {"unit": unit, "threshold": 0.5, "locked_at": "2026-01-03T00:00:00+00:00"}
    record = metrics(cohort, operating_points={unit: late}, task="detection" if unit == "lesion" else "segmentation")
    assert not record["lesion"]["counts"] and not record["froc"]["fp_per_scan"] and not record["segmentation"]["per_scan"]
    metrics_of_lesions = [record["lesion"][name] for name in ("sensitivity", "ppv", "f1", "false_positives_per_scan")]
    for one in (*metrics_of_lesions, record["froc"]["cpm"]):
        assert one["value"] is None and "refused" in one["note"]
    for one in record["segmentation"]["summary"].values():
        assert one["mean"] is None and "refused" in one["note"]
    assert all(site["dice"]["mean"] is None for site in record["robustness"]["sites"]["groups"])
    page = render(record, pictures=[], examples=[])
    assert "mean Dice" not in page.partition("</section>")[0] and "<h2>FROC</h2>" not in page


def test_no_dice_of_a_scan_is_told_where_masks_are_refused(cohort):
    evidence = gather(read_results(cohort.finish(started="2025-01-01T00:00:00+00:00")))
    rows = list(csv.DictReader(io.StringIO(scans_csv(evidence))))
    assert {row["dice"] + row["found"] for row in rows} == {""}
    assert all(example.scan.overlap is None for example in choose_examples(evidence))


def test_a_lock_that_cannot_be_checked_is_noted_and_answers_no_item(cohort):
    record = metrics(cohort, started=None)
    assert any(note.startswith("Not recorded: when scoring began") for note in record["notes"])
    assert any(note.startswith("Not recorded: a digest of the scores") for note in record["notes"])
    answered = [one["item"] for checklist in record["checklists"] for one in checklist["answered"]]
    assert "Threshold fixed beforehand" not in answered


@pytest.fixture
def cross_validated(cohort):
    point = {"threshold": 0.5, "chosen_on": "out-of-fold scores", "locked_at": "2026-01-01T00:00:00+00:00"}
    points = {unit: point | {"unit": unit} for unit in ("scan", "slice", "voxel")}
    tempered = {"scan": {"temperature": 1.7}, "slice": {"temperature": 1.0}}
    return metrics(cohort, split="cross-validation", operating_points=points, calibration=tempered)


def test_rates_at_a_threshold_chosen_on_the_very_scores_are_called_apparent(cross_validated):
    found = [cross_validated[unit][name] for unit in ("patient", "scan", "slice", "lesion") for name in ("sensitivity", "ppv", "f1")]
    assert all("apparent" in one["note"] for one in (*found, cross_validated["segmentation"]["summary"]["dice"]))
    assert "apparent" not in cross_validated["patient"]["auroc"].get("note", "")


def test_scores_tempered_on_the_very_scans_have_no_calibration_and_no_decision_curve(cross_validated):
    assert all(cross_validated["calibration"][name]["value"] is None for name in ("ece", "mce", "brier", "slope", "intercept"))
    assert "fitted on these very scores" in cross_validated["calibration"]["slope"]["note"]
    assert not cross_validated["calibration"]["bins"] and not cross_validated["decision_curve"]["model"]
    assert any(note.startswith("The temperature of the scores was fitted") for note in cross_validated["notes"])


def test_areas_stand_where_rates_are_refused(cohort):
    record = metrics(cohort, started="2025-01-01T00:00:00+00:00")
    assert record["scan"]["auroc"]["value"] is not None and "counts" not in record["scan"]
    assert record["operating_point"]["threshold"] is None and record["flow"]["positive_calls"] is None
    assert record["failures"] == {"false_negatives": None, "false_positives": None}
    assert record["flow"]["intention_to_score"]["sensitivity"]["value"] is None


def test_the_half_width_at_this_size_is_told(cohort):
    record = metrics(cohort)
    low, high = record["patient"]["sensitivity"]["ci95"]
    assert any(f"sensitivity {(high - low) / 2:.3f} ({record['patient']['sensitivity']['n']} patients)" in note for note in record["notes"])


def test_scores_of_one_class_are_not_called_calibrated(builder):
    for index in range(3):
        builder.add(f"s{index}", score=0.999, label=1, patient=f"p{index}")
    record = metrics(builder)["calibration"]
    assert record["ece"]["value"] is None and record["brier"]["value"] is None and "no negative scan" in record["ece"]["note"]


def test_equal_scores_everywhere_say_nothing(builder):
    for index in range(6):
        builder.add(f"s{index}", score=0.5, label=index % 2, patient=f"p{index}")
    record = metrics(builder)["patient"]
    low, high = record["auroc"]["ci95"]
    assert record["auroc"]["value"] == 0.5 and low < 0.25 and high > 0.75


def test_scores_that_are_no_numbers_leave_nothing_to_claim(builder):
    for index in range(4):
        builder.add(f"s{index}", score=float("nan"), label=index % 2)
    record = metrics(builder)
    assert record["scan"]["n"] == 0 and record["scan"]["n_excluded_without_score"] == 4
    assert record["scan"]["sensitivity"]["value"] is None and record["flow"]["without_finite_score"] == 4


def test_marks_of_a_detector_without_a_score_count_as_the_least_sure_and_are_told_of(cohort):
    finding = cohort.folder / "scans" / "pos_0.json"
    finding.write_text(finding.read_text().replace('"score": 0.95', '"score": NaN'))
    record = metrics(cohort, task="detection")
    assert min(record["froc"]["thresholds"]) == 0
    assert any("a score that is no number" in note for note in record["notes"])


@pytest.mark.parametrize("reference", [True, False])
def test_the_record_has_the_form_that_the_docs_promise(cohort, reference):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((Path(__file__).parents[2] / "docs" / "metrics.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(json.loads(json.dumps(metrics(cohort, reference=reference))))


def test_every_key_of_the_record_is_in_the_schema(cohort):
    schema = json.loads((Path(__file__).parents[2] / "docs" / "metrics.schema.json").read_text())
    assert set(schema["required"]) == metrics(cohort).keys() == set(schema["properties"]) - {"classes"}


def test_the_decision_curve_is_that_of_scans(cohort):
    record = metrics(cohort)["decision_curve"]
    at = record["thresholds"].index(0.5)
    assert record["unit"] == "scan" and record["model"][at] == pytest.approx(6 / 16 - 1 / 16)


def test_small_sites_draw_no_conclusion(cohort):
    sites = metrics(cohort)["subgroups"]["site"]
    assert [site["group"] for site in sites] == ["north", "south"]
    assert all("no conclusion" in site["note"] for site in sites)
    assert sites[0]["specificity"]["value"] is None


def test_few_negatives_are_too_small_to_conclude(cohort):
    assert "Too small to conclude on false alarms: 8 negative of 14 patients. Read the interval of specificity." in metrics(cohort)["notes"]


def test_scans_of_one_patient_give_the_auroc_the_interval_drawn_by_patient_beside(builder):
    for index in range(24):
        score = 0.2 + 0.5 * (index % 2) + 0.03 * (index % 7)
        for again in range(2):
            builder.add(f"s{index}_{again}", score=score, label=index % 2, patient=f"p{index}", maps=False)
    assert len(metrics(builder)["scan"]["auroc"]["patients95"]) == 2


def test_rows_of_the_reference_without_a_result_count_as_wrong_in_the_intention_to_score(cohort):
    for name, label in (("gone_0", 1), ("gone_1", 0), ("gone_2", "")):
        cohort.truth.append({"scan_id": name, "patient": name, "site": "", "label": label, "lesion": "", "split": "test"})
    record = metrics(cohort, intake={"found": 20, "rejected_by_code": {"truncated": 3}, "splits": {}})
    found = record["flow"]["intention_to_score"]
    assert (found["sensitivity"]["k"], found["sensitivity"]["n"]) == (6, 10)
    assert (found["specificity"]["k"], found["specificity"]["n"]) == (7, 9)
    assert "2 of the reference that are not in the results folder" in found["note"]
    assert "Scans that medssl prepare had refused (3 reasons in the whole store)" in found["note"]
    assert found["note"] in render(record, pictures=[], examples=[])


def test_the_least_size_of_marks_and_the_end_of_the_froc_are_told(cohort):
    voxel = {"unit": "voxel", "threshold": 0.5, "min_voxels": 80, "locked_at": "2026-01-01T00:00:00+00:00"}
    record = metrics(cohort, operating_points={"voxel": voxel})
    assert record["froc"]["rule"].endswith(
        "marks of fewer than 80 voxels of the network's grid are left out, true lesions count at any size"
    )
    assert any(note.startswith("The FROC curve ends at 0.0625 false positives a scan: at 0.125, 0.25") for note in record["notes"])
    shared = metrics(cohort, operating_points={"voxel": {**voxel, "min_voxels": 1, "min_share": 0.5}})
    assert "; marks of less than 50% of the scan's largest mark are left out" in shared["froc"]["rule"]
    assert metrics(cohort)["lesion"]["rule"].endswith("no least size of a mark or a lesion")


def test_a_froc_without_a_healthy_scan_says_so(builder):
    for index in range(3):
        builder.add(f"s{index}", score=0.9, label=1, patient=f"p{index}")
    assert any(note.startswith("No scan without lesion is in the FROC") for note in metrics(builder)["notes"])


def test_few_positives_are_too_small_to_conclude(cohort):
    assert any("Too small to conclude" in note for note in metrics(cohort)["notes"])


def test_without_truth_nothing_is_claimed(builder):
    builder.add("a", score=0.9)
    builder.add("b", score=0.1)
    record = metrics(builder, reference=False)
    values = [record[unit][name]["value"] for unit in ("patient", "scan", "slice", "lesion") for name in NAMES]
    assert set(values) == {None}
    assert record["notes"][0].startswith("There is no reference")
    assert record["flow"]["positive_calls"] == 1


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone_is_measured_only_where_it_can_be(builder, label):
    for index in range(3):
        builder.add(f"s{index}", score=0.3 + 0.3 * index, label=label, patient=f"p{index}")
    record = metrics(builder)["patient"]
    there, gone = ("sensitivity", "specificity") if label else ("specificity", "sensitivity")
    assert record[there]["value"] is not None
    missing = "no negative patient" if label else "no positive patient"
    for name in (gone, "ppv", "npv", "accuracy", "precision", "f1", "auroc", "auprc", "lr_positive"):
        assert record[name]["value"] is None and "cannot be measured" in record[name]["note"], name
    assert missing in record["ppv"]["note"] and missing in record["f1"]["note"]


def test_a_sensitivity_without_negatives_says_that_calling_everything_positive_is_as_good(builder):
    for index in range(3):
        builder.add(f"s{index}", score=0.9, label=1, patient=f"p{index}")
    record = metrics(builder)
    for unit in ("patient", "scan"):
        assert record[unit]["sensitivity"]["value"] == 1
        assert f"calling every {unit} positive would give 1.000" in record[unit]["sensitivity"]["note"]
    assert "calling every patient positive would give 1.000</span>" in render(record, pictures=[], examples=[])


@pytest.mark.parametrize(
    "scores", [(0.9, 0.8, 0.1), (0.1, 0.2, 0.9), (0.5, 0.5, 0.5), (float("nan"),) * 3], ids=["separated", "turned", "ties", "no numbers"]
)
def test_three_scans_make_no_confident_number(builder, scores):
    for index, (score, label) in enumerate(zip(scores, (1, 1, 0), strict=True)):
        builder.add(f"s{index}", score=score, label=label, patient=f"p{index}", slice_scores=[score] * 8)
    record = metrics(builder)
    assert any("Too small to conclude" in note for note in record["notes"]) or record["patient"]["n"] == 0
    named = {(unit, name): record[unit][name] for unit in ("patient", "scan", "slice", "lesion") for name in NAMES}
    named |= {("calibration", name): record["calibration"][name] for name in ("ece", "mce", "brier")}
    named |= {("lesion", "false positives"): record["lesion"]["false_positives_per_scan"], ("froc", "cpm"): record["froc"]["cpm"]}
    named |= {("dice", name): one | {"value": one["mean"]} for name, one in record["segmentation"]["summary"].items()}
    for name, found in named.items():
        low, high = found["ci95"]
        assert found["value"] is None or low is None or high - low > 0.5, name
        assert (found["value"] is not None and low is not None) or found["note"], name
    assert record["decision_curve"]["ci95"] == ()


def test_predictive_values_at_other_prevalences_have_intervals(cohort):
    first = metrics(cohort)["scan"]["at_prevalence"][0]
    assert first["prevalence"] == 0.01
    for name in ("ppv", "npv"):
        assert first[f"{name}_ci95"][0] < first[name] < first[f"{name}_ci95"][1]


def test_the_decision_curve_of_scans_is_in_the_record(cohort):
    found = metrics(cohort)["decision_curve"]
    assert len(found["model"]) == len(found["thresholds"]) == len(found["ci95"]) and found["n"] == 16


def test_without_a_locked_threshold_no_rate_is_claimed(builder):
    builder.add("a", score=0.9, label=1, slice_scores=[0.9] * 8)
    builder.add("b", score=0.1, label=0)
    record = metrics(builder, operating_points={})
    assert record["slice"]["sensitivity"]["value"] is None
    assert "no threshold" in record["slice"]["sensitivity"]["note"]


def test_scans_without_geometry_are_nominal(builder):
    builder.nominal = True
    builder.add("a", score=0.9, label=1)
    record = metrics(builder)
    assert record["nominal"] and any("nominal" in note for note in record["notes"])


def test_no_patient_is_named(cohort):
    record = metrics(cohort)
    assert '"p4"' not in json.dumps(record) and '"n3"' not in json.dumps(record)


def test_no_two_runs_differ(cohort):
    first, second = metrics(cohort), metrics(cohort)
    assert {**first, "created": ""} == {**second, "created": ""}
