"""What validation scans decide: the weights that are kept, and the operating points."""
