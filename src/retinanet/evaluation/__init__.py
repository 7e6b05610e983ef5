"""How good a detector is: COCO's numbers, their intervals, curves and kinds of errors, over a whole data set."""
