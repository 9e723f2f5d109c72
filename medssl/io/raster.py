"""PNG, JPEG and TIFF pictures: grey values without physical geometry; 16 bits are kept."""

import io
import struct
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from medssl.errors import ScanError
from medssl.io.files import claimed_format, read_file
from medssl.io.voxels import RawScan, upright
from medssl.volume import Array

_MAX_PIXELS, _MAX_BYTES = 64 << 20, 128 << 20  # a mammogram has 30 million pixels
_RATIO, _HARMLESS = 200, 64 << 20  # decoded bytes a byte of file, beyond what harms nobody: masks are compressed a thousand times
_GREY = frozenset({"L", "I", "F", "I;16", "I;16B", "I;16L", "1"})
_INDIRECT = frozenset({"P", "PA", "LA"})  # looked at as RGBA
_FORMATS = {"png": "PNG", "jpeg": "JPEG", "tiff": "TIFF"}
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # TIFF tags, and a value of the last one
_PICTURE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError, KeyError, TypeError, OverflowError)


def read_picture(path: Path, kind: str) -> RawScan:
    """A grey picture as `(I, J, 1)`, I to the left, J upwards, in the way that all screens show slices; the affine is nominal.

    It is turned as its EXIF orientation says, as viewers do, and a TIFF of which 0 is white is inverted.

    Args:
        path: The file.
        kind: `png`, `jpeg` or `tiff`, by its content.

    Raises:
        ScanError: `bad_datatype` for colour, `no_geometry` for several pages, `truncated`, `corrupt_codestream`, `declared_size`,
            `inflated_size`, `unsupported_format` for floating point numbers of which 0 is white.
    """
    data, _ = read_file(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of sizes and tags that are checked here
        picture = _decode(data, kind)
    values, affine = upright(picture)
    found = () if claimed_format(path.name) in ("", kind) else ("wrong_extension",)
    return RawScan(values, affine, nominal=True, warnings=found)


def _decode(data: bytes, kind: str) -> Array:
    try:
        with Image.open(io.BytesIO(data), formats=[_FORMATS[kind]]) as image:
            _check(image, data)
            image.load()
            with suppress(*_PICTURE_ERRORS):  # damaged EXIF says nothing, and the pixels are whole
                ImageOps.exif_transpose(image, in_place=True)
            return _grey(image)
    except Image.DecompressionBombError as error:
        raise ScanError("declared_size", "the picture declares more pixels than the cap") from error
    except UnidentifiedImageError as error:
        raise ScanError("corrupt_codestream", "the picture's header is damaged") from error
    except _PICTURE_ERRORS as error:
        cut = "truncated" in str(error)
        raise ScanError("truncated" if cut else "corrupt_codestream", "the picture is damaged or incomplete") from error


def _check(image: Image.Image, data: bytes) -> None:
    _check_size(image, data)
    if getattr(image, "n_frames", 1) > 1:
        raise ScanError("no_geometry", "the picture has several pages, with no distance between them")
    if image.mode not in _GREY and _sample_bits(image, data) > 8:
        raise ScanError("bad_datatype", "colour or alpha with 16 bits a channel is not read")
    if image.mode == "F" and _white_is_zero(image):
        raise ScanError("unsupported_format", "0 is white, and nothing says which floating point number is black")


def _check_size(image: Image.Image, data: bytes) -> None:
    """Hold what a picture declares against the caps and its file, before it is decoded."""
    pixels = image.width * image.height
    channels = 4 if image.mode in _INDIRECT else len(image.getbands())
    declared = pixels * channels * max(1, _sample_bits(image, data) // 8)
    if pixels > _MAX_PIXELS or declared > _MAX_BYTES:
        raise ScanError("declared_size", f"the picture declares {image.width} x {image.height} pixels")
    if declared > max(_HARMLESS, _RATIO * len(data)):
        raise ScanError("inflated_size", f"{len(data) >> 10} KiB of picture declare {declared >> 20} MiB")


def _sample_bits(image: Image.Image, data: bytes) -> int:
    if image.format == "PNG":
        return data[24]
    if image.format == "TIFF":
        bits = _tiff_tag(image, _BITS_PER_SAMPLE, default=8)
        return int(max(bits)) if isinstance(bits, tuple) else int(bits)
    return 8


def _white_is_zero(image: Image.Image) -> bool:
    return image.format == "TIFF" and _tiff_tag(image, _PHOTOMETRIC, default=_WHITE_IS_ZERO) == _WHITE_IS_ZERO  # Pillow's default too


def _tiff_tag(image: Image.Image, tag: int, *, default: int) -> int | tuple[int, ...]:
    return image.tag_v2.get(tag, default)  # type: ignore[attr-defined,no-any-return]


def _grey(image: Image.Image) -> Array:
    if image.mode == "1":
        return np.asarray(image, dtype=np.uint8)
    if image.mode in _GREY:
        values = np.asarray(image)
        return np.invert(values) if image.mode.startswith("I;16") and _white_is_zero(image) else values  # Pillow inverts 8 bits
    if image.mode in _INDIRECT:
        image = image.convert("RGBA")
    if image.mode not in ("RGB", "RGBA"):
        raise ScanError("bad_datatype", f"colour mode {image.mode} is not read")
    channels = np.asarray(image)
    if image.mode == "RGBA" and channels[..., 3].min() < 255:
        raise ScanError("bad_datatype", "the picture is transparent in parts")
    if (channels[..., :1] != channels[..., 1:3]).any():
        raise ScanError("bad_datatype", "the picture is in colour; grey values are wanted")
    return np.ascontiguousarray(channels[..., 0])
