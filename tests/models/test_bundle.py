import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from medssl.data.preprocess import Preprocess
from medssl.errors import BundleError, UsageError
from medssl.io.options import ReadOptions
from medssl.models.bundle import Bundle
from medssl.models.inference import Window
from medssl.models.vit import ViT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    encoder = ViT((4, 4), width=16, depth=1, heads=2)
    bundle = Bundle("encoder", encoder.architecture(), Preprocess(spacing_mm=(1.0, 1.0, 0.0)), Window((8, 8), 3))
    bundle.write(tmp_path / "bundle", encoder, "# card")
    return tmp_path / "bundle"


def test_a_bundle_is_read_as_it_was_written(folder: Path) -> None:
    bundle = Bundle.read(folder)
    assert bundle.preprocess == Preprocess(spacing_mm=(1.0, 1.0, 0.0))
    assert bundle.window == Window((8, 8), 3)
    assert isinstance(bundle.load(folder), ViT)


def test_how_scans_are_read_travels_with_a_bundle(folder: Path) -> None:
    bundle, read = Bundle.read(folder), ReadOptions(pet="suv", tilt="resample")
    chosen = replace(bundle, preprocess=replace(bundle.preprocess, read=read))
    written = chosen.write(folder.parent / "chosen", bundle.load(folder), "# card")
    assert Bundle.read(folder.parent / "chosen").preprocess.read == read
    assert written.model_id != bundle.model_id


def test_a_bundle_from_before_there_was_a_choice_reads_scans_as_stored(folder: Path) -> None:
    fields = json.loads((folder / "bundle.json").read_text())
    assert "read" not in fields["preprocess"]
    assert Bundle.read(folder).preprocess.read == ReadOptions()


def test_an_unknown_way_of_reading_is_refused(folder: Path) -> None:
    fields = json.loads((folder / "bundle.json").read_text())
    fields["preprocess"]["read"] = {"pet": "guess"}
    (folder / "bundle.json").write_text(json.dumps(fields))
    with pytest.raises(BundleError):
        Bundle.read(folder)


@pytest.mark.parametrize("name", ["operating_points", "calibration"])
@pytest.mark.parametrize("value", [5, {"scan": 5}])
def test_a_field_of_another_kind_is_refused(folder: Path, name: str, value: object) -> None:
    fields = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps({**fields, name: value}))
    with pytest.raises(BundleError, match="of another kind"):
        Bundle.read(folder)


def test_no_pickle_is_in_a_bundle(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["MODEL_CARD.md", "bundle.json", "weights.safetensors"]


def test_a_pickled_checkpoint_is_refused_with_exit_code_4(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1)}, tmp_path / "model.pt")
    with pytest.raises(BundleError, match="unsafe_checkpoint") as caught:
        Bundle.read(tmp_path / "model.pt")
    assert caught.value.exit_code == 4


def test_another_format_version_is_refused(folder: Path) -> None:
    fields = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps({**fields, "format": 99}))
    with pytest.raises(BundleError, match="format 99"):
        Bundle.read(folder)


def test_a_flipped_byte_in_the_weights_is_refused(folder: Path) -> None:
    weights = bytearray((folder / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(weights)
    with pytest.raises(BundleError, match="not those it was written with"):
        Bundle.read(folder)


@pytest.fixture
def knowing(folder: Path) -> Path:
    """The bundle again, with digests of what it has seen."""
    encoder = Bundle.read(folder).load(folder)
    replace(Bundle.read(folder), seen={"scans": [{"role": "training"}], "allowed": []}).write(folder, encoder, "# card")
    return folder


def test_what_a_bundle_has_seen_is_part_of_its_identity(knowing: Path) -> None:
    bundle = Bundle.read(knowing)
    assert bundle.seen == {"scans": [{"role": "training"}], "allowed": []}
    assert bundle.model_id != replace(bundle, seen={}).model_id


@pytest.mark.parametrize("fault", [Path.unlink, lambda path: path.write_text("{}")], ids=["removed", "edited"])
def test_a_bundle_does_not_forget_what_it_has_seen(knowing: Path, fault: Callable[[Path], object]) -> None:
    fault(knowing / "seen.json")
    with pytest.raises(BundleError, match=r"seen.json of bundle is missing or not the one"):
        Bundle.read(knowing)


def test_nothing_is_added_to_what_a_bundle_has_seen(folder: Path) -> None:
    (folder / "seen.json").write_text("{}")
    with pytest.raises(BundleError, match=r"seen.json"):
        Bundle.read(folder)


def test_a_folder_without_a_bundle_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="RUN/bundle"):
        Bundle.read(tmp_path)


def test_calibration_and_mirror_axes_travel_with_a_bundle(folder: Path) -> None:
    bundle = Bundle.read(folder)
    chosen = replace(bundle, calibration={"scan": {"temperature": 2.0}}, window=Window((8, 8), flips=(0, 1)))
    chosen.write(folder.parent / "chosen", bundle.load(folder), "# card")
    read = Bundle.read(folder.parent / "chosen")
    assert (read.temperature("scan"), read.temperature("slice"), read.window.flips) == (2.0, 1.0, (0, 1))
    assert read.model_id != bundle.model_id


def test_a_bundle_without_calibration_is_written_as_before_there_was_one(folder: Path) -> None:
    assert "calibration" not in json.loads((folder / "bundle.json").read_text())
