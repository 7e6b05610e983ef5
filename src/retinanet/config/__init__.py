"""Settings as typed dataclasses, and the recipes that set them."""
