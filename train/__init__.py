"""Training, evaluation and export of CROP models."""
