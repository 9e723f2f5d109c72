"""Records that notice a change."""

from pathlib import Path

import pytest

from medssl.data.seals import read_sealed, seal, unseal


def test_a_sealed_record_comes_back() -> None:
    assert unseal(seal({"a": [1, 2.5], "b": None})) == {"a": [1, 2.5], "b": None}


@pytest.mark.parametrize("place", range(0, 60, 7))
def test_a_changed_byte_breaks_the_seal(place: int) -> None:
    data = bytearray(seal({"number": 12, "name": "abc"}))
    data[place] ^= 1
    assert unseal(bytes(data)) != {"number": 12, "name": "abc"}
    assert unseal(bytes(data)) is None or unseal(bytes(data)) == {"number": 12, "name": "abc"}


def test_no_file_is_no_record(tmp_path: Path) -> None:
    assert read_sealed(tmp_path / "absent.json") is None
