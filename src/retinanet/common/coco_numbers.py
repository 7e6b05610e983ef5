"""COCO's twelve numbers for boxes: their names, in COCO's order, and what each of them is."""

METRICS = {
    "AP": "average precision, mean over IoU 0.50 to 0.95",
    "AP50": "average precision at IoU 0.50",
    "AP75": "average precision at IoU 0.75",
    "APs": "average precision of small objects, area below 32 × 32 pixels",
    "APm": "average precision of medium objects",
    "APl": "average precision of large objects, area from 96 × 96 pixels",
    "AR1": "average recall, 1 detection an image",
    "AR10": "average recall, 10 detections an image",
    "AR100": "average recall, 100 detections an image",
    "ARs": "average recall of small objects",
    "ARm": "average recall of medium objects",
    "ARl": "average recall of large objects",
}
"""All values are in 0..1; -1 stands for a size of which the ground truth has no box, as in COCO's own code."""
