"""Where randomness starts: masks, crops and augmentations, each drawn from an explicit generator."""
