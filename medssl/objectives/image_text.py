"""Image and text: a crop finds the sentence on its scan among those of other patients, and the sentence its crop.

Zhang et al., "Contrastive Learning of Medical Visual Representations from Paired Images and Text" (ConVIRT), 2020,
https://arxiv.org/abs/2010.00747; Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (CLIP), 2021,
https://arxiv.org/abs/2103.00020.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medssl.errors import ConfigError
from medssl.models.encoder import Encoder
from medssl.models.heads import projector
from medssl.models.text import TextTower, sentences
from medssl.objectives.monitors import found
from medssl.objectives.objective import Loss, Objective
from medssl.objectives.processes import gathered
from medssl.views.augment import Augment, augment
from medssl.views.batch import Batch

_NOT_MIRRORED = Augment(flip=0, rotate_degrees=20, scale=0.2, shift=0.1, gain=0.3, offset=0.3, noise=0.1, blur=0.2)
_LEAST_TEMPERATURE = 0.01  # CLIP, section 2.5: logits are scaled by 100 at most


class ImageText(Objective):
    """Contrast crops with the sentences on their scans; a scan without a sentence takes no part.

    Args:
        encoder: Its mean-pooled features are projected and compared.
        text: The tower that reads sentences.
        temperature: Softmax temperature at first, learned from there on and never below 0.01; 0.07 in CLIP.
        projection: Width of the embedding in which images and sentences are compared; 512 in ConVIRT.
        text_bytes: How much of a sentence is read; `text.patch` above 1 keeps long ones cheap.
        views: How crops vary; nothing is mirrored by default, as sentences name sides.

    Raises:
        ConfigError: A temperature below 0.01, or nothing to read.
    """

    compares = "patients"

    def __init__(
        self,
        encoder: Encoder,
        *,
        text: TextTower | None = None,
        temperature: float = 0.07,
        projection: int = 128,
        text_bytes: int = 1024,
        views: Augment = _NOT_MIRRORED,
    ) -> None:
        super().__init__(encoder)
        if temperature < _LEAST_TEMPERATURE:
            raise ConfigError(f"temperature must be >= {_LEAST_TEMPERATURE}, got {temperature}")
        if text_bytes < 1:
            raise ConfigError(f"text_bytes must be >= 1, got {text_bytes}")
        self.text, self.text_bytes = text or TextTower(), text_bytes
        self.views = views
        self.project_image = projector(encoder.width, encoder.width, projection)
        self.project_text = projector(self.text.width, self.text.width, projection)
        self.log_scale = nn.Parameter(torch.tensor([-math.log(temperature)]))

    def forward(self, batch: Batch) -> Loss:
        """The symmetric loss over all crops of all processes whose scan has a sentence."""
        view = augment(batch.crop(0), self.views, streams=batch.streams)
        text = _text_of(batch)
        images = gathered(self.project_image(self.encoder.pooled(view.images)))
        texts = gathered(self.project_text(self.text(text)))
        text, patient = gathered(text), gathered(batch.patient)
        said = text.ne(0).any(dim=1)
        similar = cosines(images[said], texts[said])
        pairs = alternatives(patient[said], sentences(text[said]))
        loss = symmetric_loss(similar * self.scale(), pairs)
        return Loss(loss, {"image_text": loss.detach(), "found": found(similar, pairs), "scale": self.scale().detach()})

    def scale(self) -> Tensor:
        """What cosines are multiplied with, one over the temperature."""
        return self.log_scale.exp()[0]

    def after_step(self, progress: float) -> None:
        """Keep the temperature from falling too low."""
        del progress
        with torch.no_grad():
            self.log_scale.clamp_(max=-math.log(_LEAST_TEMPERATURE))


def cosines(images: Tensor, texts: Tensor) -> Tensor:
    """Embeddings (N, D) of images and of sentences -> (N, N) cosines in float32, a row an image."""
    with torch.autocast(images.device.type, enabled=False):
        return F.normalize(images.float(), dim=1) @ F.normalize(texts.float(), dim=1).T


def alternatives(patient: Tensor, sentence: Tensor) -> Tensor:
    """(N, N) bool: which sentences each image chooses from: its own, and other ones of other patients.

    Args:
        patient: (N,) number of the patient.
        sentence: (N,) number of the sentence.
    """
    others = (patient[:, None] != patient) & (sentence[:, None] != sentence)
    return others | torch.eye(len(patient), dtype=torch.bool, device=patient.device)


def symmetric_loss(logits: Tensor, pairs: Tensor) -> Tensor:
    """Cross entropy of choosing the sentence for each image and the image for each sentence, equations 2 to 4 of ConVIRT in equal parts.

    Args:
        logits: (N, N) scaled cosines, a row an image; the right choices are on the diagonal.
        pairs: (N, N) bool, symmetric: which choices there are.

    Returns:
        The mean over rows with a choice; 0 where no row has one.
    """
    logits = logits.masked_fill(~pairs, float("-inf"))
    ways = [log_choice.diagonal() for log_choice in (logits.log_softmax(dim=1), logits.log_softmax(dim=0))]
    return -torch.stack(ways).sum() / (2 * (pairs.sum(dim=1) > 1).sum()).clamp(min=1)  # a row without a choice adds 0


def _text_of(batch: Batch) -> Tensor:
    if batch.text is None:
        raise ConfigError("image-text pretraining needs batches with text")
    return batch.text
