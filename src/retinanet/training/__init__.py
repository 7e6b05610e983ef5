"""Training: the trainer, what it decides by, and the folder of a run."""
