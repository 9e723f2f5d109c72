"""Self-supervised pretraining: unlabelled scans in, an encoder bundle out."""
