"""Several processes, several machines, and compiled blocks."""
