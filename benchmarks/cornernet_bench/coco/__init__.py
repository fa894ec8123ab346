"""Data sets in COCO's format, and detections judged on them."""
