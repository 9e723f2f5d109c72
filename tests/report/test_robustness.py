import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from medssl.errors import ManifestError
from medssl.evaluation.robustness import Outcome
from medssl.report.cases import read_results
from medssl.report.evidence import gather
from medssl.report.metrics import build_metrics
from medssl.report.write import write_report

MODEL = "model0123456789"


def outcomes(shift=0.0, scans=24):
    """Scans of as many patients, half with lesion in their second slice; `shift` takes suspicion away from those."""
    generator = np.random.default_rng(0)
    found = []
    for number in range(scans):
        label, score = number % 2, float(generator.uniform(0.3, 0.7))
        score = min(1.0, max(0.0, score + 0.3 * label - shift * label))
        labels = (0, label, 0)
        scores = (0.1, score, 0.2)
        found.append(Outcome(f"s{number}", f"p{number}", label, score, labels, scores, 0.8 - shift * (1 + number / 20) if label else None))
    return found


def condition(group, name, severity=0, **facts):
    file = f"{group}_{name}_{severity}.json" if severity else f"{group}_{name}.json"
    return {"group": group, "name": name, "severity": severity, "file": file, "what": name, "key": file, **facts}


CLEAN = (condition("clean", "clean"), outcomes())
BLUR = [(condition("damage", "blur", level, parameter="mm", amount=level / 2), outcomes(0.05 * level)) for level in range(1, 6)]
AGAIN = (condition("again", "mirrored_i"), outcomes(0.02))


def write_panel(folder, shown, *, model=MODEL):
    """What `medssl evaluate --robustness` leaves."""
    (folder / "robustness").mkdir(parents=True, exist_ok=True)
    facts = {"format": 1, "model_id": model, "split": "test", "seed": 1, "scans": [f"s{n}" for n in range(24)], "patients": 24}
    facts |= {"of_scans": 40, "of_patients": 40, "done_to": {"original": 24, "prepared": 0}, "taken_for": []}
    facts["conditions"] = [one for one, _ in shown]
    (folder / "robustness" / "panel.json").write_text(json.dumps(facts))
    for one, found in shown:
        record = {"key": one["key"], "outcomes": [asdict(outcome) for outcome in found]}
        (folder / "robustness" / one["file"]).write_text(json.dumps(record))


def measured(folder):
    """The numbers, without figures and document."""
    return build_metrics(gather(read_results(folder)))["robustness"]


def report(folder):
    return write_report(folder, folder)["robustness"]


def test_damage_is_a_paired_difference_with_its_interval(cohort):
    folder = cohort.finish()
    write_panel(folder, [CLEAN, *BLUR])
    panel = measured(folder)["panel"]
    found = [one["differences"]["dice"] for one in panel["conditions"]]
    assert [one["severity"] for one in panel["conditions"]] == [1, 2, 3, 4, 5]
    assert found[4]["value"] < found[0]["value"] < 0
    low, high = found[4]["ci95"]
    assert low < found[4]["value"] < high < 0
    assert found[4]["damaged"] - found[4]["clean"] == pytest.approx(found[4]["value"])
    assert panel["clean"]["dice"]["value"] == pytest.approx(0.8)
    assert panel["conditions"][0]["differences"].keys() >= {"scan_auroc", "scan_sensitivity", "scan_specificity", "slice_auroc"}


def test_sensitivity_is_at_the_locked_threshold(cohort):
    write_panel(cohort.finish(), [CLEAN, *BLUR])
    panel = measured(cohort.folder)["panel"]
    assert panel["thresholds"] == {"scan": 0.5, "slice": 0.5}
    called = sum(outcome.score >= 0.5 for outcome in outcomes(0.25) if outcome.label)
    assert panel["conditions"][4]["differences"]["scan_sensitivity"]["damaged"] == called / 12


def test_the_document_shows_the_heat_map_and_every_interval(cohort):
    folder = cohort.finish()
    write_panel(folder, [CLEAN, *BLUR, AGAIN])
    report(folder)
    page = (folder / "report.html").read_text()
    assert (folder / "figures" / "robustness.png").is_file()
    assert page.count("Damaged minus clean, 24 scans of 24 patients") == 2  # the caption and what stands for the picture
    assert "24 of 40 scans" in page and "drawn by patient with seed 1" in page
    assert page.count('<th scope="row">blur</th>') == 8  # seven numbers, and what was done
    shown = json.loads((folder / "metrics.json").read_text())["robustness"]["panel"]["conditions"][4]["differences"]["dice"]
    assert f"{shown['value']:+.3f}<br>" in page and f"{shown['ci95'][0]:+.3f} to {shown['ci95'][1]:+.3f}" in page
    assert "limits of agreement" in page
    assert "No robustness to damaged" not in page


def test_scans_that_get_no_score_under_damage_are_told_and_count_against_the_model(cohort):
    folder = cohort.finish()
    gone = [replace(one, score=None) if one.label == 0 else one for one in outcomes()]
    write_panel(folder, [CLEAN, (BLUR[0][0], gone)])
    (one,) = report(folder)["panel"]["conditions"]
    assert one["without_score"] == 12
    assert one["differences"]["scan_specificity"]["damaged"] == 0 and one["differences"]["scan_auroc"]["value"] < 0
    assert "12 of 24 scans got no score" in (folder / "report.html").read_text()


def test_why_differences_of_few_patients_have_no_interval_is_told_once_a_number(cohort):
    folder = cohort.finish()
    write_panel(folder, [(CLEAN[0], outcomes(scans=8)), (BLUR[4][0], outcomes(0.2, scans=8))])
    found = report(folder)["panel"]["conditions"][0]["differences"]
    assert {tuple(one["ci95"]) for one in found.values()} == {(None, None)}
    page = (folder / "report.html").read_text()
    assert page.count("An interval drawn from 8 patients would be too narrow") + page.count("An interval drawn from 4 patients") == 7


def test_a_second_report_keeps_robustness(cohort):
    folder = cohort.finish()
    write_panel(folder, [CLEAN, *BLUR])
    assert report(folder) == report(folder)
    assert (folder / "figures" / "robustness.png").is_file()


def test_without_a_panel_the_report_says_so(cohort):
    folder = cohort.finish()
    record = write_report(folder, folder)
    assert record["robustness"]["panel"] is None
    assert any(note.startswith("No robustness to damaged") for note in record["notes"])
    assert not (folder / "figures" / "robustness.png").exists()


def test_repeated_scans_have_agreement_and_turned_verdicts(cohort):
    write_panel(cohort.finish(), [CLEAN, AGAIN])
    again = measured(cohort.folder)["panel"]["again"]["scan"]
    assert again["repetitions"][0]["bias"] == pytest.approx(-0.01, abs=1e-6)
    assert again["within_case_deviation"]["repetitions"] == 2
    assert again["ever_turned"]["n"] == 24


def test_a_repetition_that_lost_scores_says_of_how_many(cohort):
    folder = cohort.finish()
    lost = [replace(one, score=None) if number < 2 else one for number, one in enumerate(outcomes())]
    write_panel(folder, [CLEAN, (AGAIN[0], lost)])
    report(folder)
    assert "2 of them without both scores" in (folder / "report.html").read_text()


def test_conditions_that_are_not_done_are_counted_and_left_out(cohort):
    folder = cohort.finish()
    write_panel(folder, [CLEAN, *BLUR])
    (folder / "robustness" / "damage_blur_5.json").unlink()
    stale = json.loads((folder / "robustness" / "damage_blur_4.json").read_text()) | {"key": "of other scans"}
    (folder / "robustness" / "damage_blur_4.json").write_text(json.dumps(stale))
    panel = report(folder)["panel"]
    assert (len(panel["conditions"]), panel["not_done"]) == (3, 2)
    assert "2 conditions were not run to their end" in (folder / "report.html").read_text()


def test_a_panel_of_another_model_is_not_shown(cohort):
    write_panel(cohort.finish(), [CLEAN, *BLUR], model="other")
    assert measured(cohort.folder)["panel"] is None


def test_a_damaged_file_says_what_to_do(cohort):
    folder = cohort.finish()
    write_panel(folder, [CLEAN, *BLUR])
    (folder / "robustness" / "damage_blur_2.json").write_text("{")
    with pytest.raises(ManifestError, match="run medssl evaluate again"):
        measured(folder)


def test_a_condition_is_read_from_the_folder_of_the_panel_alone(cohort):
    folder = cohort.finish()
    write_panel(folder, [CLEAN, BLUR[0]])
    (folder / "robustness" / BLUR[0][0]["file"]).rename(folder / "outside.json")
    panel = folder / "robustness" / "panel.json"
    panel.write_text(panel.read_text().replace('"file": "damage_blur_1.json"', '"file": "../outside.json"'))
    assert measured(folder)["panel"]["not_done"] == 1


def test_a_condition_is_compared_with_the_same_scans_alone(cohort):
    ct = (condition("damage", "contrast", 1, parameter="share", amount=0.1), outcomes(0.1)[:6])
    write_panel(cohort.finish(), [CLEAN, ct])
    one = measured(cohort.folder)["panel"]["conditions"][0]
    assert one["scans"] == 6
    assert one["differences"]["dice"]["n"] == 3


def test_one_patient_and_one_class_make_a_report_without_intervals(builder):
    builder.add("a", score=0.9, label=1, patient="p")
    ill = [outcome for outcome in outcomes() if outcome.label][:1]
    write_panel(builder.finish(), [(CLEAN[0], ill), (BLUR[0][0], ill), (AGAIN[0], ill)])
    panel = report(builder.folder)["panel"]
    assert panel["conditions"][0]["differences"]["dice"]["ci95"] == [None, None]
    assert "scan_auroc" not in panel["conditions"][0]["differences"]
    assert "cannot be measured" in panel["again"]["scan"]["repetitions"][0]["note"]


def test_sites_have_numbers_of_their_own(cohort):
    sites = report(cohort.finish())["sites"]
    north, south = sites["groups"]
    assert (north["site"], north["scans"], north["patients"], north["positive"]) == ("north", 8, 6, 8)
    assert north["scan_sensitivity"]["value"] == 0.75 and south["scan_specificity"]["value"] == 0.875
    assert north["dice"]["n"] == 8 and south["dice"]["n"] == 0
    assert not sites["left_out"]
    assert "Site by site" in (cohort.folder / "report.html").read_text()


def test_folds_by_site_are_called_leaving_one_site_out(cohort):
    folder = cohort.finish(split="cross-validation", training={"folds": {"by": "site", "count": 2}})
    assert report(folder)["sites"]["left_out"]
    assert "Leaving one site out" in (folder / "report.html").read_text()


def test_folds_by_patient_leave_no_site_out(cohort):
    assert not measured(cohort.finish(split="cross-validation", training={"folds": {"by": "patient"}}))["sites"]["left_out"]
