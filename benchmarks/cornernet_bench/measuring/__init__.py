"""Times of contestants: taken, summarised and compared, and on what machine."""
