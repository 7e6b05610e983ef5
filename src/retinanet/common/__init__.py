"""Errors, files, text and threads: small helpers that every other package may import."""
