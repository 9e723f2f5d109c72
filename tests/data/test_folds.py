from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from medssl.data.folds import fold_numbers, nearly_equal
from medssl.data.manifest import ManifestRow
from medssl.errors import ConfigError


class Signs:
    """A store whose scans are all unlike each other, but for those of one name."""

    def signs(self, rows: list[ManifestRow]) -> Any:
        seeds = [int(row.sha256) for row in rows]
        return np.stack([np.random.default_rng(seed).integers(0, 2**63, (2, 4, 64), dtype=np.uint64) for seed in seeds])


def row(number: int, *, patient: str = "", site: str = "", has_lesion: str = "1", sha256: int | None = None) -> ManifestRow:
    same = number if sha256 is None else sha256
    return ManifestRow(
        f"s{number}", patient or f"p{number}", f"{number}.nii", site=site, has_lesion=has_lesion, sha256=str(same), split="train"
    )


def folds(rows: list[ManifestRow], **asked: Any) -> list[int]:
    together = nearly_equal(Signs(), rows)  # type: ignore[arg-type]
    return fold_numbers(rows, together=together, **{"count": 5, "by": "patient", "seed": 0, **asked})


def test_folds_of_patients_are_balanced_over_lesions_and_sites() -> None:
    rows = [row(number, site="AB"[number % 2], has_lesion="01"[number // 2 % 2]) for number in range(40)]
    drawn = Counter((fold, one.site, one.has_lesion) for fold, one in zip(folds(rows), rows, strict=True))
    assert set(drawn.values()) == {2}
    assert len(drawn) == 20


def test_scans_of_a_patient_and_near_duplicates_share_a_fold() -> None:
    rows = [*(row(number) for number in range(10)), row(10, patient="p0"), row(11, sha256=3)]
    drawn = folds(rows)
    assert drawn[10] == drawn[0]
    assert drawn[11] == drawn[3]


def test_each_site_is_a_fold_and_sites_that_share_a_patient_are_one() -> None:
    rows = [row(0, site="A"), row(1, site="B"), row(2, site="C", patient="p9"), row(3, site="A", patient="p9")]
    assert folds(rows, by="site") == [0, 1, 0, 0]


def test_sites_that_share_an_equal_or_a_nearly_equal_scan_are_one() -> None:
    equal = [row(0, site="A"), row(1, site="B"), row(2, site="C"), row(0, site="C", patient="p3")]
    assert folds([*equal[:3], replace(equal[3], scan_id="s3")], by="site") == [0, 1, 0, 0]
    nearly = [replace(row(0, site="D", patient="p4"), scan_id="s4", sha256="00")]  # another hash, the same fingerprint
    assert folds([*equal[:3], *nearly], by="site") == [0, 1, 2, 0]


def test_folds_do_not_depend_on_the_order_of_the_scans() -> None:
    rows = [row(number, site="AB"[number % 2]) for number in range(12)]
    assert folds(rows[::-1])[::-1] == folds(rows)


def test_too_few_patients_or_sites_are_refused() -> None:
    with pytest.raises(ConfigError, match="3 folds by patient can be made"):
        folds([row(number) for number in range(3)])
    with pytest.raises(ConfigError, match="1 folds by site"):
        folds([row(0, site="A"), row(1, site="A")], by="site")


def test_folds_by_site_need_a_site_of_every_scan() -> None:
    with pytest.raises(ConfigError, match="1 of 3 scans name no site"):
        folds([row(0, site="A"), row(1, site="B"), row(2)], by="site")
