"""Training: one module for every pretraining objective, one for each lesion task."""
