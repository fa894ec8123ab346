"""Reports: what they consist of, where they go, and how they look."""
