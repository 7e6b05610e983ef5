"""From images to detections: the detector, post-processing, faster networks, tiling, drawing."""
