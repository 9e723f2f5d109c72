import json

from medssl.report.looks import look_notes, looks_record


def write(folder, *looks):
    lines = [json.dumps({"event": event, "model_id": model, "time": f"2026-01-0{day}"}) for day, (event, model) in enumerate(looks, 1)]
    (folder / "looks.jsonl").write_text("\n".join(lines) + "\n")


def test_looks_are_counted_by_model(tmp_path):
    write(tmp_path, ("scored", "a"), ("scored", "b"), ("scored", "a"), ("reported", "a"))
    record = looks_record(tmp_path, "a")
    assert (record["scored"], record["models"], record["reported"], record["other_models"]) == (3, {"a": 2, "b": 1}, 1, 1)
    assert (record["first"], record["last"]) == ("2026-01-01", "2026-01-04")


def test_several_models_on_one_test_set_are_warned_of(tmp_path):
    write(tmp_path, ("scored", "a"), ("scored", "b"))
    assert "2 models were scored on these scans" in " ".join(look_notes(looks_record(tmp_path, "a")))


def test_one_look_of_one_model_needs_no_warning(tmp_path):
    write(tmp_path, ("scored", "a"))
    assert list(look_notes(looks_record(tmp_path, "a"))) == []


def test_a_folder_without_a_log_says_so(tmp_path):
    assert "not logged" in " ".join(look_notes(looks_record(tmp_path, "a")))


def test_a_damaged_line_is_counted_not_hidden(tmp_path):
    write(tmp_path, ("scored", "a"))
    with (tmp_path / "looks.jsonl").open("a") as file:
        file.write('{"event": "scor\n[1]\n')
    record = looks_record(tmp_path, "a")
    assert record["unreadable"] == 2 and any("cannot be read" in note for note in look_notes(record))
