from medssl.report.cases import read_results
from medssl.report.evidence import gather
from medssl.report.forest import draw_forest, is_small
from medssl.report.metrics import build_metrics


def draw(builder):
    return draw_forest(build_metrics(gather(read_results(builder.finish()))))


def test_the_forest_counts_its_groups(cohort):
    (picture,) = draw(cohort)
    assert picture.png.startswith(b"\x89PNG") and "Rates of 2 subgroups" in picture.caption


def test_names_that_are_formulas_or_in_no_font_are_drawn_all_the_same(builder):
    builder.add("a", score=0.9, label=1, site=r"$\frac{1}{$")
    builder.add("b", score=0.1, label=0, site="\u202e\U0001f9e0 病院")
    assert len(draw(builder)) == 1


def test_without_truth_there_is_no_forest(builder):
    builder.add("a", score=0.9)
    assert draw(builder) == []


def test_a_rate_of_few_scans_is_hollow_and_one_without_interval_is_drawn_all_the_same(builder):
    for index in range(24):
        builder.add(f"s{index}", score=0.9, label=int(index < 2), patient=f"p{index // 2}", site="ab"[index % 2], maps=False)
    record = build_metrics(gather(read_results(builder.finish())))
    assert is_small(record["scan"]["sensitivity"]) and not is_small(record["scan"]["specificity"])
    assert "a rate of fewer than 20 scans" in draw_forest(record)[0].caption
    half = {"value": 0.5, "ci95": [None, None], "k": 1, "n": 2}
    record["subgroups"]["site"][0] |= {"sensitivity": half, "specificity": half}
    assert len(draw_forest(record)) == 1
