"""``cornernet-bench serve``: a running service under load."""
