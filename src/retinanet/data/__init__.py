"""Labelled images: layouts on disk, checks, augmentation and loading."""

from retinanet.data.dataset import DetectionData, collate, open_data, splits
from retinanet.data.faults import Report

__all__ = ["DetectionData", "Report", "collate", "open_data", "splits"]
