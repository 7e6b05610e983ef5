"""Pages for a person to read: what is in a data set, and how a run went. One HTML file each, which needs no network."""
