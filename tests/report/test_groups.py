import numpy as np
import pytest
from scipy.stats import fisher_exact

from medssl.evaluation.intervals import wilson
from medssl.report.cases import read_results
from medssl.report.evidence import gather
from medssl.report.groups import age_years, kinds, subgroup_tests, subgroups


def evidence(builder):
    return gather(read_results(builder.finish()))


@pytest.fixture
def mixed(builder):
    for index in range(12):
        facts = {"age": str(10 * index), "sex": "FM"[index % 2], "vendor": "GE" if index < 4 else "Philips"}
        builder.add(f"s{index:02d}", score=0.9 if index % 3 else 0.1, label=1, patient=f"p{index}", shift=index % 2, **facts)
    return builder


def test_scans_are_grouped_by_what_the_reference_tells(mixed):
    groups = {kind: {name: len(part) for name, part in parts.items()} for kind, parts in kinds(evidence(mixed)).items()}
    assert groups["sex"] == {"F": 6, "M": 6} and groups["vendor"] == {"GE": 4, "Philips": 8}
    assert groups["age"] == {"under 18": 2, "18 to 39": 2, "40 to 59": 2, "60 to 79": 2, "80 and over": 4}
    assert "site" not in groups


def test_lesion_sizes_are_cut_into_thirds(builder):
    for index, radius in enumerate((2, 2, 3, 3, 5, 5)):
        builder.add(f"s{index}", score=0.9, label=1)
        builder.save(f"s{index}", "lesion", (np.indices((24, 20, 8)).max(axis=0) < radius).astype(np.uint8))
    sizes = kinds(evidence(builder))["lesion size"]
    assert [name.split(",")[0] for name in sizes] == ["small", "middle", "large"]
    assert [[scan.case.scan_id for scan in part] for part in sizes.values()] == [["s0", "s1"], ["s2", "s3"], ["s4", "s5"]]


def test_a_group_has_its_n_its_interval_and_a_warning_when_small(mixed):
    group = next(part for part in subgroups(evidence(mixed))["sex"] if part["group"] == "F")
    assert (group["n"], group["sensitivity"]["k"], group["sensitivity"]["n"]) == (6, 4, 6)
    assert group["sensitivity"]["ci95"] == pytest.approx(list(wilson(4, 6)))
    assert "fewer than 20" in group["note"] and group["specificity"]["value"] is None


def test_a_group_of_twenty_scans_with_one_positive_draws_no_conclusion_on_sensitivity(builder):
    for index in range(21):
        builder.add(f"s{index}", score=0.9 if index == 0 else 0.1, label=int(index == 0), patient=f"p{index}", sex="F", maps=False)
    (group,) = subgroups(evidence(builder))["sex"]
    assert group["note"] == "fewer than 20 scans (sensitivity on 1, AUROC on 1): no conclusion"


def test_a_patient_with_several_scans_counts_once_in_tests_and_intervals_of_groups(builder):
    for index in range(12):
        for again in range(1 + index % 2):
            right = 0.9 if again == 0 or index != 1 else 0.1
            builder.add(f"s{index}_{again}", score=right, label=1, patient=f"p{index}", sex="FM"[index % 2], maps=False)
    record = subgroups(evidence(builder))
    women, men = record["sex"]
    assert (men["n"], men["n_patients"], men["sensitivity"]["patients_right"]) == (12, 6, [5, 6])
    assert men["sensitivity"]["ci95"] == [None, None] and "6 patients would be too narrow" in men["sensitivity"]["note"]
    assert women["sensitivity"]["method"] == "Wilson"
    (test,) = [one for one in subgroup_tests(record)["tests"] if one["kind"] == "sex"]
    assert test["p"] == pytest.approx(fisher_exact([[6, 0], [5, 1]]).pvalue)


def test_beyond_twelve_sites_the_rest_stands_together(builder):
    for index in range(15):
        builder.add(f"s{index}", score=0.9, label=1, site=f"site {index:02d}", maps=False)
    sites = kinds(evidence(builder))["site"]
    assert len(sites) == 13 and len(sites["3 others together"]) == 3


def test_rates_of_groups_are_tested_by_fisher_and_held_by_holm():
    rate = {"sensitivity": None, "specificity": {"value": None}}
    parts = [rate | {"sensitivity": {"value": k / 10, "k": k, "n": 10}} for k in (9, 2)]
    record = subgroup_tests({"sex": parts, "vendor": [parts[0], parts[0]]})
    first, second = record["tests"]
    assert first["p"] == pytest.approx(0.0054775) and first["p_holm"] == pytest.approx(2 * first["p"])
    assert second["p"] == second["p_holm"] == 1


@pytest.mark.parametrize(("tables", "p"), [([(0, 1), (1, 1), (1, 1)], 1), ([(0, 1), (1, 2), (2, 2)], 0.6), ([(0, 2), (2, 2), (1, 2)], 0.6)])
def test_small_tables_of_three_groups_are_tested(tables, p):
    parts = [{"sensitivity": {"value": k / n, "k": k, "n": n}, "specificity": {"value": None}} for k, n in tables]
    (test,) = subgroup_tests({"site": parts})["tests"]
    assert test["p"] == pytest.approx(p, abs=0.02)


def test_without_two_groups_there_is_no_test():
    assert subgroup_tests({"sex": []})["tests"] == []


@pytest.mark.parametrize(
    ("text", "years"), [("45", 45), ("045Y", 45), ("3.5", 3.5), ("", None), ("old", None), ("011M", None), ("999", None)]
)
def test_ages_are_read_as_tables_and_dicom_write_them(text, years):
    assert age_years(text) == years
