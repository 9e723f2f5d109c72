"""A plan as a configuration file that people read, edit and run."""

import json
from pathlib import Path
from typing import Literal

from medssl.data.store import Store
from medssl.errors import ConflictError
from medssl.files import write_text
from medssl.training.planning.blueprint import Blueprint, Traits, encoder_arguments, propose

_CLASSES = {"segmentation": "medssl.models.unet.PyramidUNet", "classification": "medssl.models.heads.Classifier"}


def write_plan(store: Path, out: Path, *, memory_gb: float, dims: Literal[2, 3] | None) -> Blueprint:
    """Plan for a store and write the configuration.

    Raises:
        ConflictError: There is a file already.
    """
    if out.exists():
        raise ConflictError(f"{out.name} is there already; give another --out, or delete it")
    found = propose(Traits.of(Store(store)), memory_gb=memory_gb, dims=dims)
    write_text(out, as_yaml(found, name=out.name))
    return found


def as_yaml(plan: Blueprint, *, name: str = "plan.yaml") -> str:
    """The whole configuration of `medssl finetune`, with a comment on each choice.

    Args:
        plan: What was chosen.
        name: Of the file, for the command in its first lines.
    """
    traits = plan.traits
    lines = [
        f"# Lesion {plan.task}, planned by medssl plan with the rules of nnU-Net (Isensee et al., 2021). Read it, edit it, run it.",
        f"# Command: medssl finetune --config {name} --feed.store STORE --out RUN",
        f"# Hardware: {plan.memory_gb:g} GB for a step; counted {plan.step_bytes / 1e9:.2f} GB in float32 (add --plan true to measure it).",
        "#",
        *_traits(plan),
        "",
        "network:",
        f"  class_path: {_CLASSES[plan.task]}",
        "  init_args:",
        "    encoder:",
        "      class_path: medssl.models.residual_encoder.ResidualEncoder",
        "      init_args:",
        *(f"        {key}: {_flow(value)}" for key, value in _encoder(plan).items()),
        *(["    deep_supervision: true"] if plan.task == "segmentation" else []),
        "bundle: null  # or a pretrained encoder of the same init_args",
        "feed:",
        f"  crops: {{size: {_flow(plan.size)}, context: {plan.context}, lesion_fraction: 0.5}}"
        f"  # each axis a multiple of {_flow(plan.topology.multiple)}",
        f"  batch_size: {plan.batch_size}  # what fits beside the network, at most 5 % of the data set",
        "training: {steps: 1300, checkpoint_steps: 100, learning_rate: 0.001, encoder_rate: 1.0, betas: [0.9, 0.98]}",
        "views: {rotate_degrees: 20, scale: 0.2}" + ("  # of HU within the window" if traits.intensity == "window" else ""),
        "labels: {rule: youden midway}",
        "seed: 7",
    ]
    return "\n".join(lines) + "\n"


def _traits(plan: Blueprint) -> list[str]:
    traits = plan.traits
    lesions = "no lesion masks" if traits.lesion_mm is None else f"lesions {traits.lesion_mm:.1f} mm long along K (median)"
    return [
        f"# Data: {traits.scans} labelled training scans, median {' x '.join(map(str, traits.shape))} voxels of "
        f"{' x '.join(f'{value:.2f}' for value in traits.spacing_mm)} mm, {traits.channels} channels; {lesions}.",
        "# Spacing: " + _spacing(plan),
        *_classes(traits),
        f"# {plan.dims}D: {plan.reason}.",
        *_planes(plan),
        f"# Scales: {len(plan.topology.strides)}, each axis halved while 4 cells are left; an axis twice as coarse waits.",
    ]


def _spacing(plan: Blueprint) -> str:
    traits = plan.traits
    if traits.nominal:
        return "none, the scans have no physical geometry."
    target, given = " x ".join(f"{value:.2f}" for value in traits.target_mm), ",".join(f"{value:g}" for value in traits.target_mm)
    near = all(abs(own - wanted) <= 0.1 * wanted for own, wanted in zip(traits.spacing_mm, traits.target_mm, strict=True))
    return f"{target} mm by the rule (median of the scans), " + (
        "as stored." if near else f"the store is on another grid; another one would be: medssl prepare ... --spacing-mm [{given}]."
    )


def _planes(plan: Blueprint) -> list[str]:
    """What a network of slices sees."""
    said = ["# 2D means planes along K (axial), whichever way the slices were acquired."] if plan.dims == 2 else []
    if plan.traits.cut_across:
        said.append(f"# {'Warning' if plan.dims == 2 else 'Not 2D'}: {plan.traits.cut_across}.")
    return said


def _classes(traits: Traits) -> list[str]:
    """What the plan makes of masks that tell classes apart."""
    if not traits.values:
        return []
    held = _flow(list(traits.values))
    return [
        f"# Masks hold {held}: planned as lesion against none. To tell classes apart, name them in labels.classes, add",
        f"# mask_values: {held} to labels and classes: {len(traits.values) + 1} (with the background) to network.init_args.",
    ]


def _encoder(plan: Blueprint) -> dict[str, object]:
    return encoder_arguments(plan.topology, plan.traits.channels * plan.context, plan.width)


def _flow(value: object) -> str:
    return json.dumps(value)
