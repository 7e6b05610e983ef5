"""How good a detector is: COCO's numbers, their intervals, and detection over a whole data set."""
