"""From a bundle and scans to findings and a results folder."""
