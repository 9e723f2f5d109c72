from medssl.report.case_mix import case_mix
from medssl.report.cases import read_results
from medssl.report.evidence import gather


def mix(builder):
    return case_mix(gather(read_results(builder.finish())))


def test_numbers_are_told_by_class_with_what_is_unknown(builder):
    for index, age in enumerate(("20", "30", "")):
        builder.add(f"ill{index}", score=0.9, label=1, age=age, sex="F", slice_mm="4")
    builder.add("well", score=0.1, label=0, age="80", sex="", slice_mm="nan")
    record = mix(builder)
    assert record["scans"] == {"all": 4, "lesion": 3, "no lesion": 1}
    ages = record["numbers"]["age"]
    assert (ages["lesion"]["median"], ages["lesion"]["n"], ages["lesion"]["unknown"], ages["no lesion"]["range"]) == (25, 2, 1, [80, 80])
    assert record["values"]["sex"]["all"] == {"counts": {"F": 3}, "unknown": 1}
    assert record["numbers"]["slice_mm"]["all"]["n"] == 3


def test_facts_of_which_nothing_is_known_are_named(cohort):
    assert mix(cohort)["missing"] == ["age", "sex", "vendor", "field", "slice_mm"]


def test_prevalence_has_its_interval(cohort):
    share = mix(cohort)["prevalence"]["scan"]
    assert (share["k"], share["n"], share["method"]) == (8, 16, "Wilson")


def test_scans_without_geometry_have_no_slice_distance(builder):
    builder.nominal = True
    builder.add("a", score=0.9, label=1, slice_mm="1")
    assert "slice_mm" in mix(builder)["missing"]
