from pathlib import Path

import pytest

from medssl.errors import UsageError
from medssl.io.deidentify.pseudonyms import Pseudonyms, load_key


@pytest.fixture
def pseudonyms() -> Pseudonyms:
    return Pseudonyms(bytes(range(32)))


def test_case_and_blanks_do_not_make_another_patient(pseudonyms):
    assert pseudonyms.patient("id", "AB 12", "") == pseudonyms.patient("id", " ab12", "")


def test_parts_of_an_identity_are_kept_apart(pseudonyms):
    assert pseudonyms.patient("id", "ab", "c") != pseudonyms.patient("id", "a", "bc")


def test_a_shift_is_between_a_day_and_ten_years(pseudonyms):
    shifts = [pseudonyms.patient("id", str(number)).shift_days for number in range(2000)]
    assert (min(shifts) >= 1, max(shifts) <= 3650, len(set(shifts)) > 1000) == (True, True, True)


def test_a_new_uid_is_a_valid_one(pseudonyms):
    uid = pseudonyms.uid("1.2.3")
    assert uid == pseudonyms.uid("1.2.3") != pseudonyms.uid("1.2.4")
    assert uid.startswith("2.25.")
    assert len(uid) <= 64


def test_another_key_gives_other_pseudonyms(pseudonyms):
    other = Pseudonyms(bytes(32))
    assert other.patient("id", "1") != pseudonyms.patient("id", "1")
    assert other.fingerprint != pseudonyms.fingerprint


def test_a_new_key_is_for_its_owner_alone(tmp_path: Path):
    key = load_key(tmp_path / "key", create=True)
    assert len(key) == 32
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert load_key(tmp_path / "key", create=True) == key


@pytest.mark.parametrize(("size", "mode"), [(15, 0o600), (32, 0o604), (32, 0o602), (1 << 17, 0o600)])
def test_a_key_that_is_short_or_open_to_all_is_refused(size: int, mode: int, tmp_path: Path):
    path = tmp_path / "key"
    path.write_bytes(b"x" * size)
    path.chmod(mode)
    with pytest.raises(UsageError, match="the key file"):
        load_key(path)


def test_a_missing_key_is_not_made_unasked(tmp_path: Path):
    with pytest.raises(UsageError, match="new_key"):
        load_key(tmp_path / "key")


def test_a_link_is_no_key(tmp_path: Path):
    load_key(tmp_path / "key", create=True)
    (tmp_path / "link").symlink_to(tmp_path / "key")
    with pytest.raises(UsageError, match="no link"):
        load_key(tmp_path / "link")
