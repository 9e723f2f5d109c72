"""DICOM: files to headers, headers to series, series to volumes with geometry."""
