"""medssl: self-supervised lesion detectors from unlabelled scans, with evidence a radiology researcher can trust."""

__version__ = "0.1.0"
