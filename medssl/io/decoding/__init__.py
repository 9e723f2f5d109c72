"""Compressed pixels, decoded in processes of their own."""
