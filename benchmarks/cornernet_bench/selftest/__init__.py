"""``cornernet-bench selftest``: all that a machine can check."""
