"""Videos: where frames come from (sources), detection while they flow (stream), and where results go (sinks)."""
