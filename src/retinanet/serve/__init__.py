"""A detector behind HTTP: ``retinanet serve``."""
