"""Whether two forms of a network do the same, by their outputs and their detections."""
