import json

import pytest

from medssl.errors import ManifestError
from medssl.report.cases import read_results
from medssl.report.study import read_study
from medssl.report.write import write_report


def test_what_a_study_states_is_shown_as_text_only(builder):
    builder.add("a", score=0.9, label=1)
    folder = builder.finish()
    (folder / "study.json").write_text(json.dumps({"readers": "two <b>radiologists</b>"}))
    write_report(folder, folder)
    page = (folder / "report.html").read_text()
    assert "two &lt;b&gt;radiologists&lt;/b&gt;" in page and "<b>radiologists" not in page


def test_statements_may_lie_beside_a_reference_elsewhere(builder, tmp_path):
    builder.add("a", score=0.9, label=1)
    folder = builder.finish(reference=False)
    builder.write_reference(tmp_path / "truth.csv")
    (tmp_path / "study.json").write_text('{"ethics": "waived"}')
    assert read_results(folder, reference=tmp_path / "truth.csv").study == {"ethics": "waived"}


@pytest.mark.parametrize("text", ["[]", '{"reader": "one"}', '{"readers": 2}', "no json", json.dumps({"readers": "x" * 3000})])
def test_a_file_of_another_form_is_refused(tmp_path, text):
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(ManifestError, match=r"bad_row: study\.json"):
        read_study(tmp_path / "study.json")
