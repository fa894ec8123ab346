"""``cornernet-bench accuracy``: average precision on a data set in COCO's format."""
