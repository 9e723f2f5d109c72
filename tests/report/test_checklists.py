import json

import pytest

from medssl.report.cases import read_results
from medssl.report.checklist_items import CHECKLISTS
from medssl.report.checklists import _is_compared, facts
from medssl.report.evidence import gather
from medssl.report.metrics import build_metrics


def record(builder, **run):
    return build_metrics(gather(read_results(builder.finish(**run))))


def items(found, name, kind):
    return {one["item"] for one in next(one for one in found["checklists"] if one["name"] == name)[kind]}


def test_every_checklist_is_there_and_each_item_is_answered_or_missing(cohort):
    found = record(cohort)
    assert {one["name"] for one in found["checklists"]} == set(CHECKLISTS)
    for one in found["checklists"]:
        assert len(one["answered"]) + len(one["missing"]) == one["items"] == len(CHECKLISTS[one["name"]])


def test_every_item_rests_on_a_fact_that_is_computed(cohort):
    known = facts(record(cohort))
    assert {fact for each in CHECKLISTS.values() for _, fact in each} <= known.keys()


def test_a_statement_of_the_study_answers_its_item(cohort):
    item = "16 Source of annotations, readers"
    assert item in items(record(cohort), "CLAIM 2024", "missing")
    (cohort.folder / "study.json").write_text(json.dumps({"readers": "two radiologists"}))
    assert item in items(record(cohort), "CLAIM 2024", "answered")


@pytest.mark.parametrize("change", [{"operating_points": {}}, {"started": "2025-01-01T00:00:00+00:00"}])
def test_a_threshold_that_is_absent_or_refused_answers_nothing(cohort, change):
    assert "26 Choice of the final model and threshold" in items(record(cohort), "CLAIM 2024", "answered")
    assert "26 Choice of the final model and threshold" in items(record(cohort, **change), "CLAIM 2024", "missing")


@pytest.mark.parametrize(("run", "kind"), [({}, "missing"), ({"calibration": {}}, "answered")])
def test_recalibration_is_answered_where_the_run_tells_of_it(cohort, run, kind):
    assert "12f Updating, recalibration" in items(record(cohort, **run), "TRIPOD+AI 2024", kind)


FIXED = ("FDA CADe 2022", "Threshold fixed beforehand")
SCAN = {"unit": "scan", "threshold": 0.5, "rule": "youden", "chosen_on": "validation", "locked_at": "2026-01-01", "evidence_sha256": "ab"}


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({}, "answered"),
        ({"split": "cross-validation"}, "missing"),
        ({"leakage": ["3 of 17 scans are those that the thresholds were chosen on"]}, "missing"),
        ({"started": None}, "missing"),
        ({"operating_points": {"scan": SCAN | {"evidence_sha256": None}}}, "missing"),
        ({"operating_points": {"scan": SCAN | {"chosen_on": "out-of-fold scores"}}}, "answered"),
    ],
)
def test_a_threshold_is_fixed_beforehand_when_it_is_older_than_the_scores_and_from_other_scans(cohort, change, kind):
    name, item = FIXED
    assert item in items(record(cohort, **({"operating_points": {"scan": SCAN}} | change)), name, kind)


@pytest.mark.parametrize(("leakage", "kind"), [([], "answered"), (["12 scans were in training"], "missing"), (None, "missing")])
def test_independence_of_training_is_answered_where_nothing_was_found(cohort, leakage, kind):
    assert "Independence of training and test data" in items(record(cohort, leakage=leakage), "FDA CADe 2022", kind)


@pytest.mark.parametrize(
    ("models", "kind"), [(("model0123456789",) * 2, "answered"), (("model0123456789", "other"), "missing"), ((), "missing")]
)
def test_reuse_is_controlled_where_no_other_model_was_tried(cohort, models, kind):
    looks = [json.dumps({"event": "scored", "model_id": model, "time": "2026-01-01"}) for model in models]
    (cohort.folder / "looks.jsonl").write_text("\n".join(looks))
    assert "Control of reuse of the test data" in items(record(cohort), "FDA CADe 2022", kind)


def test_limitations_are_answered_by_the_study_alone(cohort):
    assert "40 Limitations" in items(record(cohort), "CLAIM 2024", "missing")
    (cohort.folder / "study.json").write_text(json.dumps({"limitations": "one country"}))
    assert "40 Limitations" in items(record(cohort), "CLAIM 2024", "answered")


@pytest.mark.parametrize(("scans", "kind"), [(10, "missing"), (20, "answered")])
def test_groups_of_few_scans_are_no_evaluation_of_fairness_nor_of_sites(scans, kind):
    group = {"n": scans, "sensitivity": {"value": 0.9}, "specificity": {"value": 0.9}}
    found = {"subgroups": {"sex": [group] * 2, "site": [group] * 2}}
    assert [_is_compared(found, name) for name in ("sex", "site", "age")] == [kind == "answered"] * 2 + [False]


def test_two_sites_of_one_study_are_no_external_data(cohort):
    assert "Universality 3: external data, several sites" in items(record(cohort), "FUTURE-AI", "missing")
    (cohort.folder / "study.json").write_text(json.dumps({"external_test": "another hospital"}))
    assert "Universality 3: external data, several sites" in items(record(cohort), "FUTURE-AI", "answered")


def test_intervals_heed_correlation_only_where_each_repeated_unit_is_drawn_by_patient(builder):
    for index in range(48):
        builder.add(f"s{index}", score=0.2 + 0.4 * (index % 2) + 0.05 * (index % 7), label=index % 2, patient=f"p{index % 24}", maps=False)
    found = record(builder)
    assert facts(found)["clustering"]
    del found["scan"]["auroc"]["patients95"]
    assert not facts(found)["clustering"]


def test_one_scan_a_patient_without_slices_and_lesions_has_nothing_to_heed(builder):
    for index in range(6):
        builder.add(f"s{index}", score=0.1 * index, label=index % 2, patient=f"p{index}", maps=False, slice_scores=[])
    assert facts(record(builder))["clustering"]


def test_ages_in_the_reference_answer_the_demographics(builder):
    for index in range(4):
        builder.add(f"s{index}", score=0.3 * index, label=index % 2, age=str(30 + index), sex="FM"[index % 2])
    found = record(builder)
    assert "36 Demographic and clinical characteristics" in items(found, "CLAIM 2024", "answered")
    assert "Test data: imaging hardware" in items(found, "FDA CADe 2022", "missing")


def test_without_truth_no_performance_is_answered(builder):
    builder.add("a", score=0.9)
    found = record(builder, reference=False)
    assert not {"28 Metrics", "29 Uncertainty", "39 Failure analysis"} & items(found, "CLAIM 2024", "answered")
