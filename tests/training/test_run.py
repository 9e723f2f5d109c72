"""What a run records."""

from pathlib import Path

from medssl.training.run import Run


def test_the_recipe_in_a_bundle_names_no_folder_of_the_machine() -> None:
    config = """
feed: {store: /data/store, batch_size: 2}
bundle: /data/bundle
objective: {init_args: {encoder: {init_args: {path: /home/me/mae.pth, patch: [4, 4], kind: mae}}}}
"""
    recipe = Run(Path("run"), config).recipe
    assert recipe == {
        "feed": {"batch_size": 2},
        "objective": {"init_args": {"encoder": {"init_args": {"path": "mae.pth", "patch": [4, 4], "kind": "mae"}}}},
    }
