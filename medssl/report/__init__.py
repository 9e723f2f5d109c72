"""A results folder in, a report out: numbers, figures and one document that can be passed on."""
