"""Every value of the shared reference table, block by block; the names of the tests are its keys."""

import math

import numpy as np
import pytest
import torch
from monai.metrics.froc import compute_froc_score
from monai.metrics.hausdorff_distance import compute_hausdorff_distance

from medssl.evaluation import agreement, calibration, classification, comparison, intervals, lesions, segmentation, surface_area
from medssl.evaluation.classification import Counts, Units
from medssl.evaluation.operating_point import choose

SPACING = (2.5, 0.9, 0.7)


def close(value):
    return pytest.approx(value, abs=1e-6, rel=1e-9)


def scored_units(stats, name):
    block = stats["auroc_delong"]
    return Units.of("scan", labels=block["y"], scores=block[name], patients=np.arange(len(block["y"])))


def test_proportion_ci_95(stats):
    for case in stats["proportion_ci_95"]["cases"]:
        k, n = case["k"], case["n"]
        assert intervals.proportion(k, n, empty="").value == close(case["point"])
        for name in ("wilson", "clopper_pearson", "agresti_coull", "jeffreys"):
            held = np.clip(case[name], 0, 1)  # statsmodels does not hold Agresti-Coull within 0 and 1
            assert getattr(intervals, name)(k, n) == close(tuple(held)), (name, k, n)


def test_confusion(stats, units):
    block = stats["confusion"]
    counts = Counts(*(block[name] for name in ("tp", "fn", "fp", "tn")))
    labels = np.repeat([1, 1, 0, 0], [counts.tp, counts.fn, counts.fp, counts.tn])
    scores = np.repeat([1.0, 0.0, 1.0, 0.0], [counts.tp, counts.fn, counts.fp, counts.tn])
    found = classification.assess(units(labels, scores), threshold=0.5, clustered=False)
    for name, twin in {"sensitivity": "sens", "specificity": "spec", "ppv": "ppv", "npv": "npv", "f1": "f1"}.items():
        assert found[name].value == close(block[twin])
    assert (counts.mcc, counts.balanced_accuracy, counts.youden) == close((block["mcc"], block["balanced_accuracy"], block["youden"]))
    for prevalence, values in block["at_prevalence"].items():
        at = classification.predictive_values_at(counts, prevalence=float(prevalence))
        assert {name: metric.value for name, metric in at.items()} == close(values)
    ratios, expected = classification.likelihood_ratios(counts), block["likelihood_ratio"]
    for name, short in {"lr_positive": "pos", "lr_negative": "neg"}.items():
        assert ratios[name].value == close(expected[short])
        assert ratios[name].ci95 == close(tuple(expected[f"{short}_ci_log"]))


def test_auroc_delong(stats, monkeypatch):
    block = stats["auroc_delong"]
    first, second = scored_units(stats, "score_a"), scored_units(stats, "score_b")
    areas, covariance = comparison.area_covariance(first.labels, first.scores, second.scores)
    assert tuple(areas) == close((block["auc_a"], block["auc_b"]))
    assert covariance.ravel().tolist() == close([block["var_a"], block["cov_ab"], block["cov_ab"], block["var_b"]])
    assert classification.delong(first.labels, first.scores) == close((block["auc_a"], block["var_a"]))
    assert classification.auroc(first).ci95 == close(tuple(block["ci95_a"]))
    assert classification.auroc(second).ci95 == close(tuple(block["ci95_b"]))
    difference = comparison.paired_delong(comparison.Pairs(first, second))
    assert difference.value == close(block["diff"]) and difference.ci95 == close(tuple(block["diff_ci95"]))
    assert (difference.beside["z"], difference.beside["p"]) == close((block["z"], block["p_two_sided"]))
    monkeypatch.setattr(classification, "_SMALL", 1000)
    assert classification.auroc(first).ci95 == close(tuple(block["ci95_a_logit"]))


def test_auprc(stats):
    for name in "ab":
        assert classification.auprc(scored_units(stats, f"score_{name}")).value == close(stats["auprc"][f"ap_{name}"])


def test_roc_curve(stats):
    block, units = stats["roc_curve"], scored_units(stats, "score_a")
    curve = classification.roc_curve(units.labels, units.scores)
    assert curve["fpr"] == close(block["fpr"]) and curve["tpr"] == close(block["tpr"])
    assert curve["thresholds"] == block["thresholds"]


def test_operating_point(stats):
    block, units = stats["operating_point"], scored_units(stats, "score_a")
    point = choose(units.labels, units.scores, unit="scan", rule="specificity >= 0.90", locked_at="2026-01-01")
    assert (point.threshold, point.sensitivity, point.specificity) == close((block["threshold"], block["sens"], block["spec"]))


def test_calibration(stats, units):
    block = stats["calibration"]
    found = calibration.assess(units(block["y"], block["p"]))
    twins = {"brier": "brier", "ece": "ece_10", "mce": "mce_10", "slope": "cox_slope", "intercept": "cox_intercept_joint"}
    for name, twin in (twins | {"in_the_large": "calibration_in_the_large"}).items():
        assert found[name].value == close(block[twin])
    assert found["ece"].value == close(block["netcal_ece_10"])


def test_kappa(stats):
    block = stats["kappa"]
    plain = agreement.cohen_kappa(block["a"], block["b"])
    assert plain.value == close(block["kappa"]) and plain.ci95 == close(tuple(block["ci95"]))
    assert agreement.cohen_kappa(block["a"], block["b"], weights="linear").value == close(block["linear"])


def test_mcnemar(stats):
    block = stats["mcnemar"]
    (_, b), (c, _) = block["table"]
    found = comparison.mcnemar(b, c)
    assert (found.exact_p, found.chi2, found.chi2_p) == close((block["exact_p"], block["chi2"], block["chi2_p"]))


def test_holm(stats):
    block = stats["holm"]
    assert comparison.holm(block["p"]).tolist() == close(block["holm"])
    assert comparison.benjamini_hochberg(block["p"]).tolist() == close(block["bh"])


def test_clustered_proportion(stats):
    block = stats["clustered_proportion"]
    hits, trials = np.array(block["detected_of_lesions_per_patient"]).T
    drawn = intervals.clustered_proportion(hits, trials, empty="", draws=20_000)
    error, z = intervals.ratio_error(hits, trials), 1.959963984540054
    assert drawn.value == close(block["point"]) and error == close(block["se_ratio"])
    assert (drawn.value - z * error, drawn.value + z * error) == close(tuple(block["ci95_wald"]))
    assert math.sqrt(drawn.value * (1 - drawn.value) / trials.sum()) == close(block["se_naive_binomial"])
    # 0.0250 of all draws lie below 0.5 and the next value is 0.487, so that of other seeds about half would give that one.
    assert drawn.ci95 == pytest.approx(block["bootstrap_patients_20000_percentile"], abs=block["tolerance_bootstrap"])


def ellipsoid(centre, radii):
    grid = np.indices((14, 26, 26)).reshape(3, -1).T
    return ((((grid - centre) / radii) ** 2).sum(axis=1) <= 1).reshape(14, 26, 26)


def test_surface(stats):
    block = stats["surface"]
    truth = ellipsoid((7, 13, 13), (4, 7, 6))
    prediction = ellipsoid((7, 14, 12), (3, 7, 7)) | ellipsoid((11, 4, 21), (1, 1.5, 1.5))
    assert (truth.sum(), prediction.sum()) == (block["gt_voxels"], block["pred_voxels"])
    there, back = segmentation.surface_distances(prediction, truth, spacing_mm=SPACING)
    found = segmentation.compare(prediction, truth, spacing_mm=SPACING)
    assert (found.dice, segmentation.iou(prediction, truth)) == close((block["dice"], block["iou"]))
    assert found.dice == close(block["metricsreloaded"]["dice"])
    monai, reloaded, deepmind = block["monai"], block["metricsreloaded"], block["deepmind"]
    assert found.hd95_mm == close(monai["hd95"])
    assert segmentation.surface_dice(there, back, tolerance_mm=1) == close(monai["nsd_1mm"])
    assert segmentation.mean_surface_distance(there, back, pooled=True) == close(monai["assd_symmetric"])
    assert segmentation.mean_surface_distance(there, back, pooled=False) == close(reloaded["masd"])
    assert segmentation.surface_dice(there, back, tolerance_mm=2) == close(reloaded["nsd_2mm"])
    assert max(there.max(), back.max()) == close(reloaded["hd"])
    for millimetres in (1, 2):
        by_area = surface_area.surface_dice_by_area(prediction, truth, spacing_mm=SPACING, tolerance_mm=millimetres)
        assert by_area == close(deepmind[f"nsd_{millimetres}mm"])
    assert by_area == close(monai["nsd_2mm_subvoxel"])
    assert surface_area.hausdorff_by_area(prediction, truth, spacing_mm=SPACING, percent=100) == close(deepmind["hd100"])


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy.*:FutureWarning")  # monai
@pytest.mark.filterwarnings("ignore:the (ground truth|prediction).*:UserWarning")  # monai, on empty masks
def test_surface_of_empty_masks(stats):
    block = stats["surface"]["empty"]
    empty, full = np.zeros((4, 4, 4)), np.zeros((4, 4, 4))
    full[1:3, 1:3, 1:3] = 1
    both, one = (torch.as_tensor(mask)[None, None] for mask in (empty, full))
    found = [str(float(compute_hausdorff_distance(both, other, include_background=True))) for other in (both, one)]
    assert found == [block["monai_both_empty_hd"], block["monai_pred_empty_hd"]]
    assert str(surface_area.hausdorff_by_area(empty, full, spacing_mm=(1, 1, 1))) == block["deepmind_pred_empty_hd95"]
    assert str(surface_area.surface_dice_by_area(empty, full, spacing_mm=(1, 1, 1), tolerance_mm=1)) == block["deepmind_pred_empty_nsd"]
    assert segmentation.compare(empty, empty, spacing_mm=(1, 1, 1)).hd95_mm is None
    assert segmentation.compare(empty, full, spacing_mm=(1, 1, 1)).hd95_mm == close(math.sqrt(27))


def test_froc(stats):
    block = stats["froc"]
    images = enumerate(block["images"])
    found = lesions.froc([lesions.Marks(str(i), tuple(one["tp"]), tuple(one["fp"]), (), one["n"]) for i, one in images])
    assert (found["n_lesions"], found["n_scans"]) == (block["num_lesions"], block["num_images"])
    assert list(lesions.RATES) == block["fp_per_scan_rates"]
    assert {rate: found["sensitivity_at"][rate] for rate in block["sens_step"]} == close(block["sens_step"])
    assert found["cpm"]["value"] == close(block["cpm_step"])
    # MONAI's curve runs from the lowest score but one down to nothing called; ours from the highest score to the lowest.
    points = np.array([[0.0, *found["fp_per_scan"][:-1]], [0.0, *found["sensitivity"][:-1]]])[:, ::-1]
    assert points[0].tolist() == close(block["monai_curve"]["fps"]) and points[1].tolist() == close(block["monai_curve"]["sens"])
    assert compute_froc_score(*points, eval_thresholds=(0.25, 0.5, 1, 2, 4, 8)) == close(block["monai_score_025_8"])
    assert compute_froc_score(*points, eval_thresholds=lesions.RATES) == close(block["monai_cpm_7"])
    assert found["cpm"]["value"] <= block["monai_cpm_7"] + 1e-12


def test_lesionwise(stats):
    block = stats["lesionwise"]
    truth, prediction = np.zeros((12, 12, 12)), np.zeros((12, 12, 12))
    truth[1:4, 1:4, 1:4] = truth[8:10, 8:10, 8:10] = truth[1:3, 8:11, 1:3] = 1
    prediction[2:5, 1:4, 1:4] = prediction[8, 8, 8] = prediction[5:7, 5:7, 10:12] = 1
    (marks, n_marks), (known, n_lesions) = lesions.components(prediction), lesions.components(truth)
    assert (n_lesions, n_marks) == (block["n_gt"], block["n_pred"])
    table = lesions.overlaps(marks, known, n_marks=n_marks, n_lesions=n_lesions)
    assert sorted(table.ravel()) == close(sorted(np.ravel(block["iou"])))
    for rule, least in {"any_overlap": 1e-9, "iou_0.1": 0.1, "iou_0.5": 0.5}.items():
        found, expected = lesions.mark(prediction, truth, patient="a", min_iou=least), block["matching"][rule]
        assert (len(found.hits), found.n_lesions - len(found.hits), len(found.alarms)) == tuple(expected[n] for n in ("tp", "fn", "fp"))
        metrics = lesions.assess([found])
        assert [metrics[name].value for name in ("sensitivity", "ppv", "f1")] == close([expected[n] for n in ("sens", "ppv", "f1")])


def test_no_block_of_the_table_is_left_out(stats):
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert set(stats) - {"note", "versions"} <= tested
