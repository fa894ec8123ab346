"""``cornernet-bench tune``: the fastest mix of INT8 and float32 that keeps AP."""
