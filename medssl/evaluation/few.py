"""How few is too few: the numbers below which a report gives no interval or draws no conclusion, and the words for it.

DeLong's 95 % interval held the truth in 0.69, 0.78 and 0.83 of studies of 60 negatives with 2, 3 and 5 positives, and the bootstrap of 3 to
10 patients in about 0.87: both are left out below `FEW`. `FEW_IN_GROUP` is for the rates of subgroups.
"""

from collections.abc import Mapping

FEW = 10
FEW_IN_GROUP = 20


def few_of_class(smaller: int, unit: str) -> str:
    """What to say of a number that rests on two classes, the smaller of which has so many units; empty where they are enough."""
    return f"of one class there {_are(smaller, unit)}: no conclusion" if smaller < FEW else ""


def no_interval(patients: int) -> str:
    """Why a number has no interval drawn by patient; empty where there are enough of them."""
    return f"an interval drawn from {patients} {_plural('patient', patients)} would be too narrow, none is given" if patients < FEW else ""


def no_conclusion(sizes: Mapping[str, int]) -> str:
    """Which numbers of a group of scans rest on few, by name and how many; empty where none does."""
    few = ", ".join(f"{name} on {size}" for name, size in sizes.items() if size < FEW_IN_GROUP)
    return f"fewer than {FEW_IN_GROUP} scans ({few}): no conclusion" if few else ""


def _are(number: int, unit: str) -> str:
    return f"{'is' if number == 1 else 'are'} only {number} {_plural(unit, number)}"


def _plural(unit: str, number: int) -> str:
    return unit if number == 1 else f"{unit}s"
