"""A bundle at work: one preprocessed scan in, its probability map and finding out."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import center_of_mass, find_objects
from torch import Tensor

from medssl.data.classes import Classes
from medssl.data.preprocess import carry_back, carry_back_slices
from medssl.errors import ScanError, UsageError
from medssl.evaluation.calibration import tempered, tempered_classes
from medssl.evaluation.lesions import components, counted
from medssl.models.architecture import Network
from medssl.models.bundle import Bundle
from medssl.models.detection import Box, detections, slice_heights
from medssl.models.inference import channel_probabilities, slice_scores
from medssl.scoring.boxes import corners, lesion_of
from medssl.scoring.finding import Finding, LesionFinding, Triple
from medssl.volume import Volume

Part = tuple[slice, ...]


@dataclass(frozen=True, eq=False)
class Result:
    """A finding and its maps, all on the grid of `image`.

    Args:
        finding: The record.
        image: The scan in RAS order.
        probability: (I, J, K) lesion probability, None of a classifier.
        mask: (I, J, K) predicted lesion, None of a classifier.
        classes: (I, J, K) predicted class: 0 for none, 1 for the first; None where classes are not told apart.
    """

    finding: Finding
    image: Volume
    probability: NDArray[np.float32] | None
    mask: NDArray[np.uint8] | None
    classes: NDArray[np.uint8] | None = None


class Predictor:
    """A lesion network with its locked thresholds; loaded once, used for every scan.

    Args:
        folder: The bundle.

    Raises:
        UsageError: No bundle, or one that finds no lesions (an encoder).
        BundleError: A damaged or unsafe one.
    """

    def __init__(self, folder: Path) -> None:
        self.bundle = Bundle.read(folder)
        network = self.bundle.load(folder)
        if not isinstance(network, Network):
            raise UsageError(f"{folder.name} is a pretrained encoder and finds no lesions; fine-tune it with medssl finetune first")
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = network.to(self.device)

    @property
    def channels(self) -> int:
        """Channels that a scan must have."""
        return self.network.in_channels // self.bundle.window.context

    @property
    def classes(self) -> Classes:
        """Which classes the network tells apart, as truths are read for it."""
        outputs = self.bundle.outputs
        several = bool(outputs.names) and not outputs.exclusive
        return Classes(outputs.names, self.bundle.class_names, several, outputs.mask_values)

    def threshold(self, unit: str) -> float:
        """The locked threshold of a unit, 0.5 where validation could not give one."""
        return self._number(unit, "threshold", 0.5)

    def _number(self, unit: str, name: str, default: float) -> float:
        """A number of the operating point of a unit."""
        value = self.bundle.operating_points.get(unit, {}).get(name, default)
        return float(value) if isinstance(value, (int, float)) else default

    def score(self, scan: Volume, *, scan_id: str, source: str, warnings: tuple[str, ...] = ()) -> Result:
        """The result of a scan as it was read; maps are carried back to its own grid.

        Raises:
            ScanError: `channel_mismatch` when the network needs another number of channels.
        """
        scan = scan.to_ras()
        return self._result(scan, self.bundle.preprocess(scan), scan_id=scan_id, source=source, warnings=warnings)

    def score_prepared(self, prepared: Volume, *, scan_id: str, source: str) -> Result:
        """The result of a scan that a store holds preprocessed; maps are on the grid of the store."""
        return self._result(prepared, prepared, scan_id=scan_id, source=source, warnings=())

    def score_output(self, prepared: Volume, channels: Tensor, *, scan_id: str, source: str) -> Result:
        """The result of what another network has said of a scan of a store, at this bundle's calibration and thresholds.

        Args:
            prepared: The scan.
            channels: What `channel_probabilities` gives.
            scan_id: Its name.
            source: Where it came from.
        """
        return self._judged(channels, prepared, prepared, scan_id=scan_id, source=source, warnings=())

    def _result(self, scan: Volume, prepared: Volume, *, scan_id: str, source: str, warnings: tuple[str, ...]) -> Result:
        if prepared.array.shape[0] != self.channels:
            raise ScanError("channel_mismatch", f"the model takes {self.channels} channels, the scan has {prepared.array.shape[0]}")
        image = torch.from_numpy(np.ascontiguousarray(prepared.array, dtype=np.float32)).to(self.device)
        if self.network.task == "detection":
            finding = self._finding(scan, scan_id=scan_id, source=source, warnings=warnings)
            return self._detected(finding, detections(self.network, image, self.bundle.window), scan, prepared)
        channels = channel_probabilities(self.network, image, self.bundle.window)
        return self._judged(channels, scan, prepared, scan_id=scan_id, source=source, warnings=warnings)

    def _judged(self, channels: Tensor, scan: Volume, prepared: Volume, *, scan_id: str, source: str, warnings: tuple[str, ...]) -> Result:
        output = self.bundle.outputs.suspicion(channels)
        finding = self._finding(scan, scan_id=scan_id, source=source, warnings=warnings)
        scores = output if self.network.task == "classification" else slice_scores(output)
        score = self._tempered("scan", scores, channels)[int(scores.argmax())]
        finding = self._judge(finding, score, carry_back_slices(self._tempered("slice", scores, channels), prepared, scan))
        finding = replace(finding, class_scores=self._class_scores(channels))
        if self.network.task == "classification":
            return Result(finding, scan, None, None)
        probability = carry_back(output.numpy(), prepared, scan)
        named, others = self._classes(channels, prepared, scan)
        mask, lesions = self._lesions(probability, scan, ratio=prepared.voxel_volume_ml / scan.voxel_volume_ml, named=named)
        classes = None if named is None or others is None else np.where(mask > 0, named, others)
        return Result(replace(finding, lesions=lesions), scan, probability, mask, classes)

    def _tempered(self, unit: str, scores: Tensor, channels: Tensor) -> tuple[float, ...]:
        """Scores (N,) at the temperature of a unit, of the channels that they are made of where it is fitted on those."""
        temperature = self.bundle.temperature(unit)
        if temperature != 1 and self.bundle.calibrated(unit) == "classes":
            scores = self.bundle.outputs.suspicion(torch.from_numpy(tempered_classes(channels, temperature)))
            return tuple(map(float, scores))
        return tuple(map(float, tempered(scores, temperature)))

    def _class_scores(self, channels: Tensor) -> dict[str, float]:
        """Probability of each class: at the slice with the highest score, or the highest of any slice where classes do not exclude."""
        outputs = self.bundle.outputs
        if self.network.task == "segmentation":
            found = torch.tensor([float(slice_scores(one).max()) for one in outputs.of_classes(channels)])
        else:
            found = outputs.of_classes(outputs.of_scan(channels))
        temper = {"classes": tempered_classes, "each class": tempered}.get(self.bundle.calibrated("scan"))
        return outputs.spelled((found if temper is None else temper(found, self.bundle.temperature("scan"))).tolist())

    def _classes(self, channels: Tensor, prepared: Volume, scan: Volume) -> tuple[NDArray[np.uint8] | None, NDArray[np.uint8] | None]:
        """The likeliest positive class of every voxel of the scan (1 for the first class), and the likeliest of all others (0 for none)."""
        if not self.bundle.outputs.names:
            return None, None
        carried = torch.from_numpy(np.stack([carry_back(channel.numpy(), prepared, scan) for channel in channels]))
        positive, others = self.bundle.outputs.likeliest(carried)
        return positive.numpy().astype(np.uint8), others.numpy().astype(np.uint8)

    def _finding(self, scan: Volume, *, scan_id: str, source: str, warnings: tuple[str, ...]) -> Finding:
        return Finding(
            scan_id=scan_id,
            status="scored",
            source=source,
            modality=scan.modality,
            nominal=scan.nominal,
            shape=scan.shape,
            spacing_mm=scan.spacing_mm,
            score=None,
            threshold=self.threshold("scan"),
            verdict="",
            slice_scores=(),
            lesions=(),
            model_id=self.bundle.model_id,
            warnings=warnings,
        )

    def _judge(self, finding: Finding, score: float, slices: tuple[float, ...]) -> Finding:
        """The verdict on calibrated scores."""
        if not np.isfinite((score, *slices)).all():
            return replace(finding, warnings=(*finding.warnings, "nonfinite_scores"))  # no score, no verdict
        verdict = "positive" if score >= self.threshold("scan") else "negative"
        return replace(finding, score=score, verdict=verdict, slice_scores=slices)

    def _detected(self, finding: Finding, boxes: list[Box], scan: Volume, prepared: Volume) -> Result:
        """The result of a detector: the lesions at or above the locked threshold of lesions, and no map."""
        heights = slice_heights(boxes, prepared.shape[2])
        score = float(tempered(heights.max(), self.bundle.temperature("scan")))
        slices = tuple(map(float, tempered(heights, self.bundle.temperature("slice"))))
        finding = self._judge(finding, score, carry_back_slices(slices, prepared, scan))
        kept = [box for box in boxes if box.score >= self.threshold("lesion")]
        return Result(replace(finding, lesions=tuple(lesion_of(box, prepared, scan) for box in kept)), scan, None, None)

    def _lesions(
        self, probability: NDArray[np.float32], scan: Volume, *, ratio: float, named: NDArray[np.uint8] | None
    ) -> tuple[NDArray[np.uint8], tuple[LesionFinding, ...]]:
        """The parts of the predicted mask that count, and each as a lesion.

        `ratio` turns voxels of the network's grid into the scan's.
        """
        numbered, count = components(probability >= self.threshold("voxel"))
        sizes = np.bincount(numbered.ravel(), minlength=count + 1)[1:]
        voxels = self._number("voxel", "min_voxels", 1)
        least = counted(sizes, min_voxels=voxels * ratio if voxels > 1 else 1, min_share=self._number("voxel", "min_share", 0))
        kept = (np.flatnonzero(least) + 1).tolist()
        boxes = find_objects(numbered)
        lesions = [self._lesion(index, boxes[index - 1], numbered, probability, scan, named) for index in kept]
        return np.isin(numbered, kept).astype(np.uint8), tuple(sorted(lesions, key=lambda lesion: -lesion.score))

    def _lesion(
        self,
        number: int,
        box: Part,
        numbered: NDArray[np.int32],
        probability: NDArray[np.float32],
        scan: Volume,
        named: NDArray[np.uint8] | None,
    ) -> LesionFinding:
        """One component, described from its bounding box alone, with the class that most of its voxels are of."""
        inside = numbered[box] == number
        lesion = _described(inside, box, probability[box], scan)
        if named is None:
            return lesion
        return replace(lesion, class_name=self.bundle.outputs.names[int(np.bincount(named[box][inside]).argmax()) - 1])


def _described(inside: NDArray[np.bool_], box: Part, probability: NDArray[np.float32], scan: Volume) -> LesionFinding:
    """A component that fills its bounding box where `inside` says so."""
    voxels = int(inside.sum())
    centre = np.array([part.start for part in box]) + np.array(center_of_mass(inside))
    return LesionFinding(
        centre_mm=_triple(scan.affine[:3, :3] @ centre + scan.affine[:3, 3]),
        centre_voxel=_triple(centre),
        volume_ml=voxels * scan.voxel_volume_ml,
        voxels=voxels,
        score=float(probability[inside].max()),
        **corners([part.start - 0.5 for part in box], [part.stop - 0.5 for part in box], scan),
    )


def _triple(values: NDArray[np.float64]) -> Triple:
    x, y, z = (round(float(value), 3) for value in values)
    return x, y, z
