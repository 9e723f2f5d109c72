"""Headers of a series, read once: slices differ in a few values, so the next header is compared with the last and only those are parsed.

A header has the shape of an earlier one when every byte outside of values is the same: tags, representations, lengths, sequences and the
place of the pixel data. What is left to do is to take the values that differ, which is a hundred times faster than to walk the elements.
A header of another shape is walked. The result is the same in both ways; `tests/io/dicom/test_templates.py` holds them against each other.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from medssl.errors import ScanError
from medssl.io.dicom.elements import SYNTAX, Leaf, Parsed
from medssl.io.dicom.frames import Frame, position_of
from medssl.io.dicom.header import BadFile, DicomFile, check_header, parse_header
from medssl.io.dicom.siemens import is_mosaic
from medssl.io.dicom.tags import POSITION, SIEMENS_CSA_IMAGE, SOP_UID, WANTED, text
from medssl.io.files import HEAD_BYTES, FileStamp

_KEPT = 32  # shapes: the length of a decimal string changes along a series
_LEAST = 8192  # enough to tell a file of another format
_SLACK = 4096  # bytes by which the next header may be longer than the last
_PREAMBLE = 128
_PIXEL_HEADER = 8  # bytes of the pixel element before its value, at least
_ITEM = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
_OF_A_SLICE = frozenset({SOP_UID, POSITION, SIEMENS_CSA_IMAGE})  # what differs from slice to slice in a plain series

Record = TypeVar("Record", DicomFile, Frame, Parsed)


class HeaderReader:
    """Reads headers one after the other and remembers the shapes of the last ones."""

    def __init__(self) -> None:
        self.templates: list[_Template] = []

    @property
    def head_bytes(self) -> int:
        """How much of a file to read so that a header like the last one is whole."""
        return max(_LEAST, self.templates[0].end + _SLACK) if self.templates else HEAD_BYTES

    def read(self, path: Path, head: bytes, stamp: FileStamp) -> DicomFile | BadFile:
        """Header of one file; a problem comes back as a `BadFile` with its code.

        Args:
            path: The file, read further where its header is longer than `head`.
            head: Its first bytes.
            stamp: Its size and time when `head` was read.
        """
        for number, template in enumerate(self.templates):
            found = template.read(path, head, stamp)
            if found is not None:
                self.templates.insert(0, self.templates.pop(number))
                return found
        try:
            parsed, head, stamp = parse_header(path, head, stamp)
        except ScanError as error:
            return BadFile(error.code)
        file = check_header(path, parsed, stamp)
        if isinstance(file, DicomFile) and _has_shape(parsed, file):
            self.templates = [_Template(parsed, file, head), *self.templates[: _KEPT - 1]]
        return file


def _has_shape(parsed: Parsed, file: DicomFile) -> bool:
    tags = [leaf.tag for leaf in parsed.leaves]
    return parsed.inflated is None and not file.multiframe and len(set(tags)) == len(tags)


class _Template:
    """One header, and which value each of its bytes belongs to."""

    def __init__(self, parsed: Parsed, file: DicomFile, head: bytes) -> None:
        self.parsed, self.file, self.end = parsed, file, file.pixels.offset
        self.head = head[: self.end]
        self.mark = self.head[-_PIXEL_HEADER:]
        preamble = () if "missing_preamble" in parsed.warnings else (Leaf(0, _PREAMBLE, 0),)
        self.leaves: Sequence[Leaf] = (*preamble, *parsed.leaves)
        self.moving: list[tuple[Leaf, bytes]] = []  # values that some header of this shape has otherwise
        self.rest = [(0, self.head)]  # what lies between them

    def read(self, path: Path, head: bytes, stamp: FileStamp) -> DicomFile | BadFile | None:
        """The header of a file of the same shape, None for one of another."""
        if len(head) < self.end or not head.startswith(self.mark, self.end - _PIXEL_HEADER):
            return None
        if not all(head.startswith(part, start) for start, part in self.rest) and not self._learn(head):
            return None
        changed = [leaf for leaf, value in self.moving if not head.startswith(value, leaf.start)]
        if any(leaf.tag == SYNTAX or head.startswith(_ITEM, leaf.start, leaf.end) for leaf in changed):
            return None
        values = {leaf.tag: head[leaf.start : leaf.end] for leaf in changed if leaf.tag in WANTED}
        parsed = _with(self.parsed, elements=self.parsed.elements | values)
        return self._moved(path, parsed, stamp, values) or check_header(path, parsed, stamp)

    def _learn(self, head: bytes) -> bool:
        """Whether a header differs in values only; these are compared one by one from then on."""
        old, new = np.frombuffer(self.head, np.uint8), np.frombuffer(head, np.uint8, self.end)
        places = np.flatnonzero(old != new)
        numbers = np.searchsorted([leaf.start for leaf in self.leaves], places, side="right") - 1
        ends = np.array([leaf.end for leaf in self.leaves])
        if numbers[0] < 0 or (places >= ends[numbers]).any():
            return False
        known = {leaf.start for leaf, _ in self.moving} | {self.leaves[number].start for number in np.unique(numbers)}
        moving = [leaf for leaf in self.leaves if leaf.start in known and leaf.start < leaf.end]
        self.moving = [(leaf, self.head[leaf.start : leaf.end]) for leaf in moving]
        edges = [0, *(edge for leaf in moving for edge in (leaf.start, leaf.end)), self.end]
        self.rest = [(start, self.head[start:end]) for start, end in zip(edges[::2], edges[1::2], strict=True)]
        return True

    def _moved(self, path: Path, parsed: Parsed, stamp: FileStamp, values: dict[int, bytes]) -> DicomFile | None:
        """The file of the template at another place, where nothing else is different."""
        if not values.keys() <= _OF_A_SLICE or stamp.size != self.file.stamp.size or (SIEMENS_CSA_IMAGE in values and is_mosaic(parsed)):
            return None
        frame = self.file.frames[0]
        if POSITION in values:
            try:
                frame = _with(frame, position=position_of(parsed.elements))
            except ScanError:
                return None  # the full check names it
        return _with(self.file, path=path, stamp=stamp, sop_uid=text(parsed.elements, SOP_UID), frames=(frame,))


def _with(record: Record, **changes: object) -> Record:
    """`dataclasses.replace` for a record that computes nothing of its fields, in a tenth of the time."""
    new = object.__new__(type(record))
    vars(new).update(vars(record) | changes)
    return new
