"""The bundle: all that scoring needs of a training run, in a folder without code.

`weights.safetensors` (tensors only), `bundle.json` (everything else), `MODEL_CARD.md` (for people), and `seen.json` (digests of the scans
it has learned from, so that nobody tests it on them by mistake). Pickle is never read.
"""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from medssl.data.preprocess import Preprocess
from medssl.errors import BundleError, ConfigError, UsageError
from medssl.models.architecture import Architecture, Network
from medssl.models.inference import Window
from medssl.models.outputs import Outputs

FORMAT = 1


@dataclass(frozen=True)
class Bundle:
    """A trained encoder or lesion network, described.

    Args:
        kind: `encoder`, `segmentation` or `classification`.
        architecture: How the network is built.
        preprocess: What its input looks like.
        window: How it looks at a scan.
        class_names: Classes that count as positive; empty for any lesion.
        outputs: What the channels of the network mean, where classes are named.
        operating_points: Locked thresholds by unit (`scan`, `slice`, `voxel`), as JSON fields.
        calibration: Temperature of the scores of each unit (`scan`, `slice`), as JSON fields; empty leaves scores as they are. `of` says
            what it is of where classes are named, see `calibrated`.
        training: Facts of the run: seed, manifest and config hash, steps, loss, patients, time.
        lineage: Identities of the bundles it started from, first ancestor last.
        versions: Versions of the software that made it.
        weights_id: First 12 hex digits of the SHA-256 of the weights file; empty before it is written.
        seen: What it has learned from, as `medssl.data.seen` writes it; empty where that is not known.
    """

    kind: str
    architecture: Architecture
    preprocess: Preprocess
    window: Window
    class_names: tuple[str, ...] = ()
    operating_points: dict[str, dict[str, object]] = field(default_factory=dict)
    calibration: dict[str, dict[str, object]] = field(default_factory=dict)
    training: dict[str, object] = field(default_factory=dict)
    lineage: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    weights_id: str = ""
    seen: dict[str, Any] = field(default_factory=dict, repr=False)
    outputs: Outputs = Outputs()

    @property
    def model_id(self) -> str:
        """Identity of weights and description together."""
        return hashlib.sha256(json.dumps(self._fields(), sort_keys=True).encode()).hexdigest()[:12]

    def temperature(self, unit: str) -> float:
        """What the logit of a score of a unit is divided by; 1 leaves it as it is."""
        value = self.calibration.get(unit, {}).get("temperature", 1.0)
        return float(value) if isinstance(value, int | float) else 1.0

    def calibrated(self, unit: str) -> str:
        """What the temperature of a unit is of, beside the score.

        Returns:
            `classes`: the logits of classes of which one holds, of which the score is made; `each class`, on its own; empty for nothing,
            as in bundles from before class scores were calibrated.
        """
        return str(self.calibration.get(unit, {}).get("of", ""))

    def _fields(self) -> dict[str, object]:
        """The description as JSON fields, with a hash in place of what it has seen."""
        fields = {**asdict(self), "preprocess": self.preprocess.as_dict()}
        del fields["seen"]
        if not self.calibration:
            del fields["calibration"]  # bundles from before there was one keep their identity
        if self.outputs == Outputs():
            del fields["outputs"]  # bundles without named classes keep the identity that they had before there were any
        return fields | ({"seen_sha256": hashlib.sha256(_json(self.seen)).hexdigest()} if self.seen else {})

    def write(self, folder: Path, network: nn.Module, card: str) -> "Bundle":
        """Write the folder, whole or not at all; returns the bundle with its `weights_id`."""
        temporary = folder.with_name(folder.name + ".tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, temporary / "weights.safetensors")
        if self.seen:
            (temporary / "seen.json").write_bytes(_json(self.seen))
        fields = {**self._fields(), "weights_id": _weights_id(temporary), "format": FORMAT}
        (temporary / "bundle.json").write_text(json.dumps(fields, indent=1), encoding="utf-8")
        (temporary / "MODEL_CARD.md").write_text(card, encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        temporary.replace(folder)
        return Bundle.read(folder)

    @classmethod
    def read(cls, folder: Path) -> "Bundle":
        """Read the description and check that the weights belong to it.

        Raises:
            UsageError: No bundle there.
            BundleError: A pickle, another format version, or weights or digests of scans that were changed.
        """
        if not (folder / "bundle.json").is_file():
            raise _no_bundle(folder)
        try:
            fields = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise BundleError(f"{folder.name}/bundle.json is damaged; take the bundle from its run again") from error
        found = fields.pop("format", None) if isinstance(fields, dict) else None
        if found != FORMAT:
            raise BundleError(f"{folder.name} has bundle format {found}, this medssl reads {FORMAT}; use the version named in bundle.json")
        if not (folder / "weights.safetensors").is_file() or _weights_id(folder) != fields.get("weights_id"):
            raise BundleError(f"the weights of {folder.name} are missing or not those it was written with; take it from its run again")
        fields["seen"] = _seen(folder, fields.pop("seen_sha256", None))
        return cls._of(fields, folder.name)

    @classmethod
    def _of(cls, fields: dict[str, object], name: str) -> "Bundle":
        try:
            parts = {
                "architecture": Architecture.from_dict(_mapping(fields["architecture"])),
                "preprocess": Preprocess.from_dict(_mapping(fields["preprocess"])),
                "window": Window(**_tuples(_mapping(fields["window"]))),  # type: ignore[arg-type]
                "outputs": Outputs(**_tuples(_mapping(fields.get("outputs", {})))),  # type: ignore[arg-type]
                **{name: _records(fields.get(name, {})) for name in ("operating_points", "calibration")},
            }
            return cls(**{**_tuples(fields), **parts})  # type: ignore[arg-type]
        except (KeyError, TypeError, ConfigError) as error:
            raise BundleError(
                f"{name}/bundle.json lacks a field, has one too many or one of another kind; use the version named in it"
            ) from error

    def load(self, folder: Path) -> nn.Module:
        """The network with its weights, in eval mode, on the CPU.

        Raises:
            BundleError: Weights that do not fit the architecture.
        """
        network = self.architecture.build()
        try:
            network.load_state_dict(read_weights(folder))
        except RuntimeError as error:
            raise BundleError(f"the weights of {folder.name} do not fit its architecture; take the bundle from its run again") from error
        if isinstance(network, Network):
            network.outputs = self.outputs
        return network.eval()


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of a bundle.

    Raises:
        BundleError: The file is not safetensors.
    """
    try:
        return load_file(folder / "weights.safetensors")
    except (SafetensorError, OSError) as error:
        raise BundleError(f"the weights of {folder.name} cannot be read as safetensors") from error


def _seen(folder: Path, sha256: object) -> dict[str, Any]:
    """What a bundle has seen, checked against its hash in the description."""
    path = folder / "seen.json"
    if sha256 is None and not path.exists():
        return {}
    data = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(data).hexdigest() != sha256:
        raise BundleError(f"seen.json of {folder.name} is missing or not the one it was written with; take the bundle from its run again")
    seen: dict[str, Any] = json.loads(data)
    return seen


def _json(record: dict[str, Any]) -> bytes:
    return json.dumps(record, indent=1, sort_keys=True).encode()


def _weights_id(folder: Path) -> str:
    with (folder / "weights.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def _no_bundle(path: Path) -> BundleError | UsageError:
    if path.is_file():
        return BundleError(
            f"unsafe_checkpoint: {path.name} is a file; weights that need pickle are never loaded. Give a bundle folder that medssl wrote"
        )
    return UsageError(f"{path.name} holds no bundle.json; give the bundle folder of a run, such as RUN/bundle")


def _mapping(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise TypeError("not a mapping")
    return value


def _records(value: object) -> dict[str, dict[str, object]]:
    return {unit: _mapping(record) for unit, record in _mapping(value).items()}


def _tuples(fields: dict[str, object]) -> dict[str, object]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
