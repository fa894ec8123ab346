"""``cornernet-bench stream``: rate, lag and leaks of video streams."""
