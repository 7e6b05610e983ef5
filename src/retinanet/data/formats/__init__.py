"""Annotation formats: COCO, Pascal VOC and YOLO, read and written."""
