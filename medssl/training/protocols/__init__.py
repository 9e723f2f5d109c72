"""Which weights of a lesion network learn, how fast, and what the labels at hand suggest."""
