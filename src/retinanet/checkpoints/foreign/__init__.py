"""Readers of the checkpoints of other projects, one file each."""
