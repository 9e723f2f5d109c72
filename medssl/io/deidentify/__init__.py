"""Copies of DICOM images without the patients."""
