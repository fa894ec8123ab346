"""``cornernet-bench compare``: models side by side."""
