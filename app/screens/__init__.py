"""The screens of the review app, one file each."""
