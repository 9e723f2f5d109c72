import numpy as np

from medssl.report.cases import read_results
from medssl.report.evidence import gather
from medssl.report.examples import choose_examples
from medssl.report.failures import failures


def found(builder):
    return failures(gather(read_results(builder.finish())))


def test_every_miss_is_listed_lowest_score_first(cohort):
    assert [one["scan_id"] for one in found(cohort)["false_negatives"]] == ["pos_7", "pos_6"]


def test_the_reason_of_a_miss_comes_from_the_maps(builder):
    builder.add("silent", score=0.1, label=1)
    builder.add("elsewhere", score=0.2, label=1)
    builder.save("elsewhere", "mask", (np.indices((24, 20, 8)).max(axis=0) < 3).astype(np.uint8))
    builder.add("unsure", score=0.3, label=1)
    builder.save("unsure", "mask", builder_lesion(builder, "unsure"))
    builder.add("bare", score=0.4, label=1, maps=False)
    reasons = {one["scan_id"]: one["reason"] for one in found(builder)["false_negatives"]}
    assert reasons["silent"].startswith("nothing was marked; true volume")
    assert reasons["elsewhere"].startswith("1 marks, none of which meets a lesion")
    assert reasons["unsure"].startswith("1 of 1 lesions were marked, but the score")
    assert reasons["bare"] == "no mask to compare"


def builder_lesion(builder, scan_id):
    import nibabel as nib

    return np.asarray(nib.load(builder.folder / "maps" / f"{scan_id}_lesion.nii.gz").dataobj, dtype=np.uint8)


def test_false_alarms_are_listed_highest_score_first_with_their_marks(builder):
    builder.add("low", score=0.6, label=0)
    builder.add("high", score=0.9, label=0)
    alarms = found(builder)["false_positives"]
    assert [one["scan_id"] for one in alarms] == ["high", "low"]
    assert "1 false marks" in alarms[0]["reason"] and "0.900" in alarms[0]["reason"]


def test_the_ten_highest_false_alarms_and_every_miss_are_shown(builder):
    for index in range(12):
        builder.add(f"well{index:02d}", score=0.5 + index / 100, label=0, maps=False)
    for index in range(30):
        builder.add(f"ill{index:02d}", score=index / 100, label=1, maps=False)
    chosen = choose_examples(gather(read_results(builder.finish())))
    shown = [one.scan.case.scan_id for one in chosen if one.kind == "false_positive"]
    assert shown == [f"well{index:02d}" for index in range(11, 1, -1)]
    assert sum(one.kind == "false_negative" for one in chosen) == 30
