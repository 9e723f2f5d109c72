"""From scans to a manifest, a frozen preprocessing and a store of arrays."""
