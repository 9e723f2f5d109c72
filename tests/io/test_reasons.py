import re
from pathlib import Path

from medssl.io.reasons import BOTH, REASONS, WARNINGS

ROOT = Path(__file__).resolve().parents[2]


def test_every_code_has_its_row_in_the_docs():
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "intake.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(REASONS)


def test_warnings_are_known_codes():
    assert REASONS.keys() >= WARNINGS >= BOTH


def test_every_code_that_the_intake_raises_is_known():
    raised = {
        code
        for path in (ROOT / "medssl" / "io").glob("*.py")
        for code in re.findall(r'(?:Scan|Series)Error\(\s*"(\w+)"', path.read_text(encoding="utf-8"))
    }
    assert raised <= REASONS.keys()
