"""Annotation formats: COCO, Pascal VOC and YOLO, read and written; those of other tools, read."""
