"""Cells of a table that no spreadsheet calculates, and back: `'` in front of a text that begins like a formula.

OWASP, CSV Injection, https://owasp.org/www-community/attacks/CSV_Injection.
"""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def safe(value: object) -> object:
    """A cell: numbers as they are, None as nothing, a text that begins like a formula with one `'` more than it has."""
    if value is None:
        return ""
    return f"'{value}" if isinstance(value, str) and _is_formula(value) else value


def plain(cell: str) -> str:
    """The text that `safe` made a cell of."""
    return cell[1:] if cell.startswith("'") and _is_formula(cell) else cell


def _is_formula(text: str) -> bool:
    return text.lstrip("'").startswith(_FORMULA)
