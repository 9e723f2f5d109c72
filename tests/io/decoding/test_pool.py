"""Compressed pixels are decoded in child processes; one that dies or hangs costs one scan."""

import os
import signal

import numpy as np
import pytest

from medssl.errors import ScanError
from medssl.io.decoding.codecs import FrameSpec
from medssl.io.decoding.pool import Decoder, decode_safely

SPEC = FrameSpec("1.2.840.10008.1.2.5", 2, 3, 8, 8, False, "MONOCHROME2")
# One RLE segment behind the header of 64 bytes: a literal run of six values.
FRAME = (1).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(56) + bytes([5, 1, 2, 3, 4, 5, 6, 0])
VALUES = np.array([[1, 2, 3], [4, 5, 6]])


@pytest.fixture
def decoder():
    decoder = Decoder(patience_s=30)
    yield decoder
    decoder.stop()


def test_a_frame_comes_back_as_its_values(decoder):
    values, contradicts = decoder.decode(SPEC, FRAME)
    assert np.array_equal(values, VALUES)
    assert not contradicts


def test_the_child_imports_nothing_from_the_folder_in_which_the_command_runs(decoder, tmp_path, monkeypatch):
    (tmp_path / "pydicom.py").write_text("raise SystemExit")
    (tmp_path / "json.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)
    assert np.array_equal(decoder.decode(SPEC, FRAME)[0], VALUES)


def test_a_damaged_frame_comes_back_as_its_reason_and_the_child_lives_on(decoder):
    with pytest.raises(ScanError, match="corrupt_codestream"):
        decoder.decode(SPEC, FRAME[:70])
    assert np.array_equal(decoder.decode(SPEC, FRAME)[0], VALUES)


def test_a_child_that_dies_is_one_refusal_and_the_next_frame_gets_another(decoder):
    decoder.decode(SPEC, FRAME)
    decoder.process.stdout.close()
    decoder.process.stdout = open(os.devnull, "rb")  # noqa: SIM115, PTH123 - what is left of a child that died at work
    with pytest.raises(ScanError, match="decoder_crashed"):
        decoder.decode(SPEC, FRAME)
    assert np.array_equal(decoder.decode(SPEC, FRAME)[0], VALUES)


def test_a_child_that_died_between_two_frames_is_replaced(decoder):
    decoder.decode(SPEC, FRAME)
    decoder.process.kill()
    decoder.process.wait()
    assert np.array_equal(decoder.decode(SPEC, FRAME)[0], VALUES)


def test_a_child_that_hangs_is_a_timeout(decoder):
    decoder.decode(SPEC, FRAME)
    os.kill(decoder.process.pid, signal.SIGSTOP)
    decoder.patience_s = 1
    with pytest.raises(ScanError, match="timeout"):
        decoder.decode(SPEC, FRAME)
    decoder.patience_s = 30
    assert np.array_equal(decoder.decode(SPEC, FRAME)[0], VALUES)


def test_the_pool_decodes_as_one_child_does():
    assert np.array_equal(decode_safely(SPEC, FRAME)[0], VALUES)
