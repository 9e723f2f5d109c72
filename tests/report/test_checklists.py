import json

import pytest

from medssl.report.cases import read_results
from medssl.report.checklist_items import CHECKLISTS
from medssl.report.checklists import facts
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
