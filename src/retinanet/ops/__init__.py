"""The geometry of the paper: boxes, anchors, their assignment, resizing."""
