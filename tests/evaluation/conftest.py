"""Reference values by independent libraries, and a scored group of patients."""

import json
from pathlib import Path

import numpy as np
import pytest

from medssl.evaluation.classification import Units

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "reference" / "stats.json"


def pytest_collection_modifyitems(items):
    for item in items:
        if "stats" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.real_data)


@pytest.fixture
def stats():
    if not REFERENCE.is_file():
        pytest.skip("reference/stats.json of the shared folder is not beside this checkout")
    return json.loads(REFERENCE.read_text())


@pytest.fixture
def scored(stats):
    """The 60 labelled scores of the reference, one patient each."""
    block = stats["auroc_delong"]
    return Units.of("scan", labels=block["y"], scores=block["score_a"], patients=np.arange(len(block["y"])))


def units(labels, scores, patients=None, unit="scan"):
    return Units.of(unit, labels=labels, scores=scores, patients=range(len(labels)) if patients is None else patients)


@pytest.fixture(name="units")
def units_fixture():
    """A function that makes units of labels and scores."""
    return units
