"""The short help of the training commands, without the classes that their configurations name: it answers before torch is loaded."""

from medssl.assets import asset

FULL = "--help=full"

_ABOUT = {
    "pretrain": "Train an encoder on the scans of one split of a store, without their labels.",
    "finetune": "Train a lesion network on labelled scans and lock its thresholds on validation scans.",
}
_BOTH = (
    ("--config FILE", "YAML file with the settings; options on the command line override it"),
    ("--out RUN", "run folder: the settings that were used, logs, checkpoints, bundle"),
    ("--plan true", "estimate time and memory, run nothing, leave nothing"),
    ("--resume true", "go on from the newest checkpoint of the run folder"),
    ("--feed.store STORE", "what medssl prepare wrote"),
    ("--feed.batch_size N", "crops of a step"),
    ("--training.steps N", "optimiser steps in all"),
    ("--training.learning_rate X", "highest rate, after warm-up"),
    ("--training.devices N", "GPUs, or processes on the CPU"),
    ("--seed N", "of first weights, crops and views"),
    ("--from_bundle BUNDLE", "make a bundle again from its own bundle.json"),
)
OPTIONS = {
    "pretrain": (*_BOTH, ("--bundle BUNDLE", "a pretrained encoder to go on with"), ("--split NAME", "part of the store that may be seen")),
    "finetune": (
        *_BOTH,
        ("--bundle BUNDLE", "a pretrained encoder; from scratch without it"),
        ("--protocol NAME", "which weights learn; auto asks the advisor"),
        ("--labels.patients N", "labelled patients to learn from; all without it"),
        ("--folds '{count: N}'", "a cross-validation whose members make one bundle"),
    ),
}


def short_help(command: str) -> str:
    """What `medssl pretrain --help` or `medssl finetune --help` prints."""
    folder = asset(f"configs/{command}")
    recipes = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
    return "\n".join(
        [
            f"usage: medssl {command} --config FILE --out RUN [--key.sub VALUE ...]",
            "",
            _ABOUT[command],
            "",
            *(f"  {option:<27} {text}" for option, text in OPTIONS[command]),
            "",
            f"Recipes, each a FILE.yaml in {folder}:",
            *(f"  {name}" for name in recipes),
            "",
            f"Every setting of a recipe is an option too; medssl {command} {FULL} prints all of them.",
        ]
    )
