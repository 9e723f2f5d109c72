"""Every screen opens, says what is wrong and what to do next."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from decisions import Decision, read_decisions, save_decision
from results import load_results

APP = Path(__file__).resolve().parents[2] / "app" / "review.py"
DISCLAIMER = "Research use only. Not a medical device."


def texts(app) -> str:
    """Everything the page says."""
    kinds = (app.markdown, app.caption, app.error, app.info, app.warning, app.success, app.text)
    return "\n".join(str(element.value) for kind in kinds for element in kind)


@pytest.mark.parametrize("screen", ["Reading", "Operating point", "Report", "Decisions"])
def test_every_screen_opens_and_shows_the_disclaimer(results, open_app, screen):
    app = open_app(results, screen=screen)
    assert not app.exception
    assert not app.error
    assert DISCLAIMER in texts(app)


def test_the_worklist_begins_with_the_most_suspicious_scan(results, open_app):
    app = open_app(results)
    assert app.dataframe[0].value["scan_id"].tolist() == ["case_a", "case_b", "case_c", "case_d"]
    assert "case_a" in texts(app)


def test_the_viewer_begins_at_the_most_suspicious_slice(results, open_app):
    assert open_app(results).slider(key="slice_Axial").value == 5


def test_the_lesion_button_moves_every_plane_to_the_lesion(results, open_app):
    app = open_app(results)
    app.slider(key="slice_Axial").set_value(1).run()
    app.button(key="lesion_1").click().run()
    assert app.session_state["crosshair"] == [3, 3, 4]


def test_the_slice_buttons_stop_at_the_last_slice(results, open_app):
    app = open_app(results)
    for _ in range(3):
        app.button(key="slice_right").click().run()
    assert app.slider(key="slice_Axial").value == 6


def test_the_other_planes_can_be_shown(results, open_app):
    app = open_app(results)
    app.session_state["plane"] = "Coronal"
    app.run()
    assert not app.exception
    assert app.slider(key="slice_Coronal").value == 4


def test_a_plane_keeps_its_slice_while_another_one_is_shown(results, open_app):
    app = open_app(results)
    app.slider(key="slice_Axial").set_value(2).run()
    for plane in ("Sagittal", "Axial"):
        app.session_state["plane"] = plane
        app.run()
    assert app.slider(key="slice_Axial").value == 2


def test_a_preset_moves_window_and_level(results, open_app):
    app = open_app(results)
    before = app.slider(key="window_width").value
    app.selectbox(key="window_preset").set_value("Full range").run()
    assert app.slider(key="window_width").value > before
    app.slider(key="window_width").set_value(50.0).run()
    assert app.session_state["window"][0] == 50.0


def test_next_opens_the_following_scan_and_puts_it_in_the_address(results, open_app):
    app = open_app(results)
    app.button(key="next_scan").click().run()
    assert app.query_params["scan"] == "case_b"


def test_the_address_chooses_the_scan(results, open_app):
    app = open_app(results, scan="case_c")
    assert app.metric[0].value == "0.100"


@pytest.mark.parametrize("scan", ["nobody", "../../etc/passwd", "maps/case_a_image"])
def test_an_unknown_scan_in_the_address_is_told(results, open_app, scan):
    app = open_app(results, scan=scan)
    assert not app.exception
    assert "unknown scan" in app.error[0].value


def test_the_filter_leaves_only_negative_scans(results, open_app):
    app = open_app(results)
    app.selectbox(key="filter_verdict").set_value("negative").run()
    assert app.dataframe[0].value["scan_id"].tolist() == ["case_c"]


def test_a_rejected_scan_shows_its_reason(results, open_app):
    app = open_app(results, scan="case_d")
    assert "missing_slice" in app.warning[0].value


def test_a_saved_verdict_is_a_row_of_the_database(results, open_app):
    app = open_app(results)
    app.text_input(key="reviewer").set_value("AB").run()
    app.radio(key="verdict").set_value("disagree")
    app.slider(key="confidence").set_value(65)
    app.text_area(key="comment").set_value("vessel")
    app.button(key="save").click().run()
    row = read_decisions(results / "review.sqlite").iloc[0]
    assert (row["scan"], row["reviewer"], row["verdict"], row["confidence"], row["comment"]) == ("case_a", "AB", "disagree", 65, "vessel")
    assert "Saved" in app.success[0].value
    assert app.dataframe[0].value["decision"].tolist()[0] == "disagree"


def test_save_and_next_saves_and_moves_on_with_an_empty_answer(results, open_app):
    app = open_app(results)
    app.text_input(key="reviewer").set_value("AB").run()
    app.radio(key="verdict").set_value("agree")
    app.button(key="save_next").click().run()
    assert len(read_decisions(results / "review.sqlite")) == 1
    assert app.query_params["scan"] == "case_b"
    assert app.radio(key="verdict").value is None


def test_the_reference_label_is_told_only_after_the_reviewer_has_decided(results, open_app):
    app = open_app(results)
    app.text_input(key="reviewer").set_value("AB").run()
    assert "Reference" not in texts(app)
    app.radio(key="verdict").set_value("agree")
    app.button(key="save").click().run()
    assert "Reference: lesion" in texts(app)


def test_an_answer_without_reviewer_is_not_saved(results, open_app):
    app = open_app(results)
    app.radio(key="verdict").set_value("agree")
    app.button(key="save").click().run()
    assert "Not saved" in app.error[0].value
    assert not (results / "review.sqlite").exists()


def test_a_database_that_cannot_be_written_says_not_saved(results, open_app):
    (results / "review.sqlite").mkdir()
    app = open_app(results)
    app.text_input(key="reviewer").set_value("AB").run()
    app.radio(key="verdict").set_value("agree")
    app.button(key="save").click().run()
    assert any("Not saved" in error.value for error in app.error)
    assert not app.success


def test_the_threshold_slider_changes_the_live_numbers(results, open_app):
    app = open_app(results, screen="Operating point")
    assert [metric.value for metric in app.metric] == ["1.000", "0.500"]
    assert not app.warning
    app.slider(key="threshold").set_value(0.7).run()
    assert [metric.value for metric in app.metric] == ["1.000", "1.000"]
    assert "Exploratory" in app.warning[0].value
    app.button(key="locked_threshold").click().run()
    assert app.slider(key="threshold").value == 0.5


def test_without_truth_the_operating_point_says_what_is_needed(results, open_app):
    (results / "reference.csv").unlink()
    app = open_app(results, screen="Operating point")
    assert "reference.csv" in app.info[0].value
    assert not app.metric


def test_the_report_screen_lists_metrics_and_rejected_scans(results, open_app):
    rate = {"value": 0.9, "ci95": [0.8, 0.95], "method": "wilson", "k": 9, "n": 10}
    empty = {"value": None, "ci95": None, "method": "delong", "n": 0}
    (results / "metrics.json").write_text(json.dumps({"scan": {"sensitivity": rate, "auroc": empty}}))
    app = open_app(results, screen="Report")
    assert not app.exception
    assert app.dataframe[0].value["95 % interval"].tolist() == ["0.800 to 0.950", ""]
    assert app.dataframe[1].value["reasons"].tolist() == ["missing_slice"]


def test_a_missing_folder_names_the_next_command(tmp_path, open_app):
    app = open_app(tmp_path / "absent")
    assert "medssl score" in app.error[0].value
    assert str(tmp_path) not in texts(app)


def test_an_empty_folder_names_the_next_command(tmp_path, open_app):
    app = open_app(tmp_path)
    assert "medssl score" in app.error[0].value


def test_no_folder_names_the_next_command(open_app):
    assert "medssl review" in open_app(None).error[0].value


def test_a_table_without_a_column_is_told(results, open_app):
    (results / "results.csv").write_text("scan_id,status\ncase_a,scored\n")
    assert "missing_column" in open_app(results).error[0].value


def test_a_site_that_was_kept_from_being_a_formula_is_shown_as_it_was(results):
    table = results / "reference.csv"
    table.write_text(table.read_text().replace("north", "'=north"))
    assert "=north" in set(load_results(results).table["site"])


def test_a_table_with_no_scan_is_told(results, open_app):
    header = (results / "results.csv").read_text().splitlines()[0]
    (results / "results.csv").write_text(header + "\n")
    assert "No scan" in open_app(results).info[0].value


def test_a_scan_without_maps_is_told(results, open_app):
    (results / "maps" / "case_a_image.nii.gz").unlink()
    app = open_app(results)
    assert not app.exception
    assert "medssl score" in app.error[0].value


def test_a_map_that_is_a_link_out_of_the_folder_is_not_shown(results, open_app, tmp_path):
    image = results / "maps" / "case_a_image.nii.gz"
    image.rename(tmp_path / "secret.nii.gz")
    image.symlink_to(tmp_path / "secret.nii.gz")
    assert "path_escape" in open_app(results).error[0].value


def test_a_flat_image_shows_without_a_slice_slider(results, open_app):
    flatten(results, "case_a")
    app = open_app(results)
    assert not app.exception
    assert "no physical position" in app.get("image")[0].captions[0]


def flatten(results, scan_id):
    """Make a scan of the folder a 2D image without geometry."""
    import nibabel as nib

    for path in (results / "maps").glob(f"{scan_id}_*"):
        image = nib.load(path)
        nib.save(nib.Nifti1Image(image.dataobj[:, :, 4:5], image.affine), path)
    path = results / "scans" / f"{scan_id}.json"
    finding = json.loads(path.read_text())
    finding |= {"nominal": True, "shape": [8, 8, 1], "slice_scores": [0.9]}
    finding["lesions"][0]["centre_voxel"] = [3.0, 3.0, 0.0]
    path.write_text(json.dumps(finding))


def test_the_app_runs_without_loading_torch(results):
    script = (
        "import sys\n"
        "from streamlit.testing.v1 import AppTest\n"
        f"sys.argv = ['review.py', {str(results)!r}]\n"
        "for screen in ('Reading', 'Operating point', 'Report', 'Decisions'):\n"
        f"    app = AppTest.from_file({str(APP)!r}, default_timeout=60)\n"
        "    app.query_params['screen'] = screen\n"
        "    assert not app.run().exception, app.exception\n"
        "assert 'torch' not in sys.modules\n"
    )
    path = [str(APP.parent), str(APP.parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_another_reader_does_not_find_the_answer_of_the_one_before(results, open_app):
    app = open_app(results)
    app.text_input(key="reviewer").set_value("AB").run()
    app.session_state["verdict"] = "disagree"
    app.session_state["confidence"] = 95
    app.button(key="save").click().run()
    app.text_input(key="reviewer").set_value("CD").run()
    assert (app.session_state["verdict"], app.session_state["confidence"]) == (None, 80)
    app.text_input(key="reviewer").set_value("AB").run()
    assert (app.session_state["verdict"], app.session_state["confidence"]) == ("disagree", 95)


def test_decisions_of_others_are_told_only_after_ones_own(results, open_app):
    save_decision(results / "review.sqlite", Decision("case_a", "AB", "disagree", 80, "an artefact", "model0123456789"))
    app = open_app(results)
    app.text_input(key="reviewer").set_value("CD").run()
    assert "artefact" not in texts(app)
    assert app.dataframe[0].value["decision"].tolist() == [""] * 4
    app.radio(key="verdict").set_value("agree")
    app.button(key="save").click().run()
    assert "AB disagree (80 %): an artefact" in texts(app)
    assert app.dataframe[0].value["decision"].tolist() == ["agree", "", "", ""]


def test_the_filter_for_agreement_leaves_disagreement_out(results, open_app):
    for scan, verdict in (("case_a", "agree"), ("case_b", "disagree")):
        save_decision(results / "review.sqlite", Decision(scan, "AB", verdict, 80, "", "model0123456789"))
    app = open_app(results)
    app.text_input(key="reviewer").set_value("AB").run()
    app.selectbox(key="filter_decision").set_value("agree").run()
    assert app.dataframe[0].value["scan_id"].tolist() == ["case_a"]


def test_a_threshold_above_every_score_opens(results, open_app):
    run = json.loads((results / "run.json").read_text())
    run["operating_points"]["scan"]["threshold"] = 1.0000000000000002
    (results / "run.json").write_text(json.dumps(run))
    app = open_app(results, screen="Operating point")
    assert not app.exception
    assert "**0 of 3** scored scans are positive" in texts(app)
