"""Siemens mosaics: many slices as tiles of one image, told by ImageType or by the private headers. Trust rule 15."""

import re
import struct

from medssl.io.dicom.elements import Elements, Parsed
from medssl.io.dicom.tags import IMAGE_TYPE, SIEMENS_CSA, SIEMENS_CSA_IMAGE, SIEMENS_MR, SIEMENS_TILES, integer, text

_TILES = b"NumberOfImagesInMosaic\0"
_ITEM_COUNT, _ITEMS, _LENGTHS = 76, 84, 16  # bytes in a field of the CSA header: name, counts, then items of four lengths and a text


def is_mosaic(parsed: Parsed) -> bool:
    """Whether the one image of a file holds several slices side by side."""
    found = parsed.elements
    if "MOSAIC" in text(found, IMAGE_TYPE).upper().split("\\"):
        return True
    if text(found, SIEMENS_MR) == "SIEMENS MR HEADER" and integer(parsed, SIEMENS_TILES, 0) > 1:
        return True
    return text(found, SIEMENS_CSA) == "SIEMENS CSA HEADER" and _csa_tiles(found) > 1


def _csa_tiles(found: Elements) -> int:
    """NumberOfImagesInMosaic of the CSA image header, 0 where it is not filled."""
    header = found.get(SIEMENS_CSA_IMAGE, b"")
    at = header.find(_TILES) if isinstance(header, bytes) else -1
    if not isinstance(header, bytes) or at < 0 or len(header) < at + _ITEMS + _LENGTHS:
        return 0
    count = struct.unpack_from("<i", header, at + _ITEM_COUNT)[0]
    value = re.match(rb"\s*(\d{1,6})", header[at + _ITEMS + _LENGTHS : at + _ITEMS + _LENGTHS + 8])
    return int(value[1]) if count > 0 and value else 0
