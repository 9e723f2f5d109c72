"""Scan intake: a folder of files in, volumes with geometry or named refusals out."""
