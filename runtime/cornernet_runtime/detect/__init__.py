"""The work behind ``cornernet-detect``: images, videos, live streams."""
