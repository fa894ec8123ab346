"""``cornernet-bench oracle``: where AP is lost."""
