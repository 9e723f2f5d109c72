"""How a scan is read where there is a choice. Training and scoring must choose alike, so the choice travels with the preprocessing."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from medssl.errors import ConfigError

FourD = Literal["refuse", "split"]
Pet = Literal["stored", "suv"]
Tilt = Literal["shear", "resample"]
Units = Literal["stored", "mm"]

_CHOICES = {"four_d": ("refuse", "split"), "pet": ("stored", "suv"), "tilt": ("shear", "resample"), "units": ("stored", "mm")}


@dataclass(frozen=True)
class ReadOptions:
    """What is done with scans that can be read in more than one way.

    Args:
        four_d: A NIfTI, NRRD, MetaImage or MGH file of several volumes is refused (`not_3d`), or split into a scan for each volume.
        pet: DICOM PET keeps its values as they are after rescale, or becomes SUV by body weight in g/ml (`medssl.io.dicom.suv`).
        tilt: Slices that lean keep their sheared affine, or are resampled onto a grid with right angles (`medssl.io.tilt`).
        units: A NIfTI that does not say its unit of length has nominal voxels, or is taken to be in millimetres.

    Raises:
        ConfigError: Another choice.
    """

    four_d: FourD = "refuse"
    pet: Pet = "stored"
    tilt: Tilt = "shear"
    units: Units = "stored"

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")

    def chosen(self) -> Mapping[str, str]:
        """The choices that are not the usual ones."""
        usual = asdict(AS_STORED)
        return {name: value for name, value in asdict(self).items() if value != usual[name]}


AS_STORED = ReadOptions()
"""What is done when nobody chooses."""
