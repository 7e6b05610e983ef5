"""The functions of the public API, which :mod:`retinanet` exports."""
