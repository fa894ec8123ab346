"""``cornernet-bench latency``: from frame to boxes, stage by stage."""
