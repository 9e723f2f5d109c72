"""Named classes in a report: scans and patients by class, and masks class by class."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medssl.report.write import write_report

BREAST = ("normal", "benign", "malignant")
SCORES = {"a": (0.7, 0.2, 0.1), "b": (0.1, 0.7, 0.2), "c": (0.2, 0.5, 0.3), "d": (0.1, 0.1, 0.8)}
LABELS = {"a": "normal", "b": "benign", "c": "malignant", "d": "malignant"}
PATIENTS = {"a": "p1", "b": "p2", "c": "p3", "d": "p3"}


def classified(builder, names=BREAST, labels=LABELS, *, exclusive=True, task="classification") -> Path:
    for scan_id, scores in SCORES.items():
        builder.add(
            scan_id, score=scores[-1], label=int(labels[scan_id] == "malignant"), patient=PATIENTS[scan_id], maps=task != "classification"
        )
        finding = replace(builder.last, class_scores=dict(zip(names, scores, strict=False)))
        (builder.folder / "scans" / f"{scan_id}.json").write_text(finding.to_json())
    builder.truth = [row | {"class": labels[row["scan_id"]]} for row in builder.truth]
    return builder.finish(classes={"names": list(names), "exclusive": exclusive}, task=task)


def test_scans_are_counted_by_true_and_called_class(builder) -> None:
    record = write_report(folder := classified(builder), folder)["classes"]
    assert record["scan"]["confusion"] == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    found = record["scan"]["by_class"]["malignant"]
    assert (found["n"], found["recall"]["value"], found["precision"]["value"]) == (2, 0.5, 1.0)
    assert record["scan"]["balanced_accuracy"]["value"] == pytest.approx((1 + 1 + 0.5) / 3)


def test_a_patient_has_the_mean_of_the_scans(builder) -> None:
    record = write_report(folder := classified(builder), folder)["classes"]
    assert record["patient"]["n"] == 3
    assert record["patient"]["by_class"]["malignant"]["recall"]["value"] == 1.0


def test_a_patient_whose_scans_have_unlike_classes_is_left_out(builder) -> None:
    record = write_report(folder := classified(builder, labels=LABELS | {"c": "benign"}), folder)["classes"]
    assert (record["patient"]["n"], record["patient"]["n_excluded"]) == (2, 1)


def test_several_labels_are_counted_each(builder) -> None:
    labels = {"a": "normal", "b": "nodule", "c": "nodule;effusion", "d": "effusion"}
    record = write_report(folder := classified(builder, ("nodule", "effusion"), labels, exclusive=False), folder)["classes"]
    assert {name: part["n"] for name, part in record["scan"]["by_class"].items()} == {"nodule": 2, "effusion": 2}
    assert "confusion" not in record["scan"]
    assert record["patient"]["n"] == 3


def test_masks_are_compared_class_by_class(builder) -> None:
    names = ("oedema", "core")
    folder = classified(builder, names, dict.fromkeys(SCORES, ""), task="segmentation")
    for scan_id in SCORES:
        truth, found = np.zeros((24, 20, 8), np.uint8), np.zeros((24, 20, 8), np.uint8)
        truth[:4, :4, 2], found[:2, :4, 2] = 1, 1
        truth[10:12, :4, 2] = found[10:12, :4, 2] = 2 if scan_id == "a" else 0
        builder.save(scan_id, "true_classes", truth)
        builder.save(scan_id, "classes", found)
    record = write_report(folder, folder)["classes"]
    assert record["segmentation"]["oedema"]["mean"] == pytest.approx(2 / 3)
    assert (record["segmentation"]["core"]["mean"], record["segmentation"]["core"]["n"]) == (1.0, 1)
    assert {name: part["n"] for name, part in record["scan"]["by_class"].items()} == {"oedema": 4, "core": 1}


def test_classes_stand_in_the_report(builder) -> None:
    folder = classified(builder)
    write_report(folder, folder)
    page = (folder / "report.html").read_text()
    assert "called malignant" in page
    assert "balanced accuracy" in page


def test_results_of_lesion_against_none_have_no_classes(cohort) -> None:
    folder = cohort.finish()
    assert "classes" not in write_report(folder, folder)


def test_the_class_of_a_scan_stays_out_of_the_columns_that_others_read(builder) -> None:
    folder = classified(builder)
    with (folder / "reference.csv").open() as file:
        assert {row["label"] for row in csv.DictReader(file)} == {"0", "1"}
    assert json.loads((folder / "scans" / "a.json").read_text())["class_scores"]["normal"] == 0.7
