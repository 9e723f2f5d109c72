"""Arrays in, numbers out: what a score is worth, with its uncertainty and what cannot be said."""
