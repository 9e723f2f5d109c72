"""Fine-tuning: labelled scans in, a bundle of a lesion classifier, segmenter or detector out."""
