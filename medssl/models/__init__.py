"""Networks in plain torch, 2D and 3D from one code path."""
