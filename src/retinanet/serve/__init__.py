"""A detector behind HTTP: ``retinanet serve``. What needs FastAPI is imported from app.py and server.py alone."""
