import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from medssl.cli import main
from medssl.data.store import Store
from medssl.errors import ConfigError, ManifestError
from medssl.training.launch import launch_finetune
from medssl.training.planning.blueprint import Traits, network_of, propose, topology
from medssl.training.planning.blueprint_text import as_yaml


def traits(shape: tuple[int, int, int] = (96, 96, 64), spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Traits:
    return Traits(40, shape, spacing, np.array([spacing] * 4), 1, False, 40, 9.0, 40 * int(np.prod(shape)), "zscore")


def test_a_coarse_axis_is_halved_later_and_has_flat_kernels_until_then() -> None:
    scales = topology((32, 32, 16), (1.0, 1.0, 4.0))
    assert scales.strides == ((1, 1, 1), (2, 2, 1), (2, 2, 1), (2, 2, 2), (1, 1, 2))
    assert [kernel[2] for kernel in scales.kernels] == [1, 1, 3, 3, 3]
    assert scales.multiple == (8, 8, 4)


def test_an_axis_is_halved_while_four_cells_are_left() -> None:
    assert topology((8, 16), (1.0, 1.0)).strides == ((1, 1), (2, 2), (1, 2))


def test_the_traits_are_those_of_the_entries(store: Path) -> None:
    found = Traits.of(Store(store))
    assert (found.scans, found.shape, found.spacing_mm, found.masks) == (2, (16, 16, 4), (1.0, 1.0, 1.0), 2)
    assert found.lesion_mm == 2.0  # two slices of 1 mm


def test_no_voxel_is_read(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "_opened", lambda *_: pytest.fail("an array was opened"))
    Traits.of(Store(store))


def test_a_split_without_labels_is_refused(store: Path) -> None:
    with pytest.raises(ManifestError, match="no scan of split 'test'"):
        Traits.of(Store(store), "test")


@pytest.mark.parametrize(
    ("shape", "spacing", "dims"),
    [((64, 64, 1), (1, 1, 1), 2), ((64, 64, 40), (1, 1, 1), 3), ((64, 64, 40), (0.5, 0.5, 5.0), 2)],
)
def test_slices_far_apart_or_few_are_planned_in_2d(shape: tuple[int, int, int], spacing: tuple[float, float, float], dims: int) -> None:
    assert traits(shape, spacing).dims()[0] == dims


@pytest.mark.parametrize("axis", [0, 1])
def test_thick_slices_that_do_not_lie_along_k_are_planned_in_3d_with_kernels_that_are_flat_across_them(axis: int) -> None:
    shape, spacing = (np.roll(values, axis) for values in ([24, 96, 96], [5.0, 0.6, 0.6]))
    found = traits(tuple(shape.tolist()), tuple(spacing.tolist()))
    dims, reason = found.dims()
    name = ("I (sagittal)", "J (coronal)")[axis]
    assert (dims, reason) == (3, f"the median scan has 24 slices along {name}, 8.3 times as thick as pixels")
    assert propose(found, memory_gb=1.0).topology.kernels[0][axis] == 1
    assert f"# Not 2D: slices lie along {name}, and 2D cuts across them, into axial planes" in as_yaml(propose(found, memory_gb=1.0))


def test_a_plan_that_cuts_across_the_slices_because_it_is_asked_to_says_so() -> None:
    plan = propose(traits((24, 96, 96), (5.0, 0.6, 0.6)), memory_gb=1.0, dims=2)
    warning = "slices lie along I (sagittal), and 2D cuts across them, into axial planes with pixels of 5.00 x 0.60 mm"
    assert f"# Warning: {warning}." in as_yaml(plan)
    assert f"2D (asked for; {warning})" in str(plan)


def test_a_plan_of_axial_slices_says_what_its_planes_are_and_warns_of_nothing() -> None:
    text = as_yaml(propose(traits((64, 64, 40), (0.5, 0.5, 5.0)), memory_gb=0.5))
    assert "# 2D means planes along K (axial), whichever way the slices were acquired." in text
    assert "Warning" not in text


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.2, 1.0, 1.0), (2.5, 2.5, 0.5)])
def test_where_no_axis_is_far_coarser_than_the_others_slices_lie_along_k(spacing: tuple[float, float, float]) -> None:
    assert traits(spacing=spacing).across == 2


def test_thick_slices_are_prepared_at_the_thin_ones() -> None:
    sources = np.array([(0.5, 0.5, thickness) for thickness in (2.0, *[5.0] * 9)])
    found = replace(traits((512, 512, 30), (0.5, 0.5, 5.0)), source_mm=sources)
    assert found.target_mm == (0.5, 0.5, pytest.approx(np.percentile(sources[:, 2], 10)))
    assert replace(found, source_mm=np.full((4, 3), 1.2)).target_mm == (1.2, 1.2, 1.2)


def test_a_plan_fits_its_budget_and_its_network_takes_its_crop() -> None:
    plan = propose(traits((48, 48, 32)), memory_gb=0.3)
    assert plan.step_bytes <= 0.3e9
    assert plan.batch_size >= 2
    assert all(size % step == 0 for size, step in zip(plan.size, plan.topology.multiple, strict=True))
    with torch.device("meta"):
        assert network_of(plan.task, plan.topology, 1, plan.width)(torch.empty(1, 1, *plan.size)).shape == (1, 1, *plan.size)


def test_more_memory_gives_a_larger_step() -> None:
    small, large = (propose(traits((48, 48, 32)), memory_gb=budget) for budget in (0.2, 1.0))
    assert small.step_bytes < large.step_bytes
    assert small.width < large.width


def test_no_memory_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="give more memory"):
        propose(traits((48, 48, 32)), memory_gb=0.001)


STEPS = """
import torch
from medssl.training.planning.blueprint import network_of, topology
from medssl.training.planning.cost import _remembered
from medssl.training.planning.footprint import footprint

scales = topology((64, 64), (1.0, 1.0))
counted = footprint(lambda: network_of("segmentation", scales, 1, 8), (64, 64))
network = network_of("segmentation", scales, 1, 8)
optimizer = torch.optim.AdamW(network.parameters())
with _remembered() as taken:
    for _ in range(2):
        network(torch.randn(16, 1, 64, 64)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
print(taken[0] / counted.total(16))
"""


def test_the_count_of_a_step_is_near_what_it_takes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STEPS], capture_output=True, text=True, check=True
    )  # memory of earlier tests would serve here
    assert 0.2 < float(done.stdout) < 2


def test_a_written_plan_runs_as_it_is(tmp_path: Path, store: Path) -> None:
    path = tmp_path / "plan.yaml"
    assert main(["plan", str(store), "--memory-gb", "0.2", "--dims", "3", "--out", str(path)]) == 0
    short = ["--training.steps", "2", "--training.checkpoint_steps", "2", "--training.precision", "32-true"]
    bundle = launch_finetune(["--config", str(path), "--feed.store", str(store), *short, "--out", str(tmp_path / "run")])
    assert bundle.kind == "segmentation"
    assert bundle.window.size == tuple(yaml.safe_load(path.read_text())["feed"]["crops"]["size"])


def test_a_plan_that_is_there_is_kept(tmp_path: Path, store: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text("mine")
    assert main(["plan", str(store), "--memory-gb", "0.2", "--out", str(path)]) == 3
    assert path.read_text() == "mine"


def test_scans_without_masks_are_planned_for_a_classifier() -> None:
    plan = propose(replace(traits((48, 48, 32)), masks=0, lesion_mm=None), memory_gb=0.5)
    assert yaml.safe_load(as_yaml(plan))["network"]["class_path"] == "medssl.models.heads.Classifier"


def test_a_plan_names_the_spacing_that_a_store_can_be_prepared_at() -> None:
    coarse = replace(traits((48, 48, 32), (2.0, 2.0, 2.0)), source_mm=np.full((4, 3), 1.0))
    assert "medssl prepare ... --spacing-mm [1,1,1]" in as_yaml(propose(coarse, memory_gb=0.3))


def test_a_plan_says_that_several_classes_are_taken_as_lesion_against_none() -> None:
    text = as_yaml(propose(replace(traits((48, 48, 32)), values=(1, 2, 4)), memory_gb=0.3))
    assert "# Masks hold [1, 2, 4]: planned as lesion against none." in text
    assert "lesion against none" not in as_yaml(propose(traits((48, 48, 32)), memory_gb=0.3))
