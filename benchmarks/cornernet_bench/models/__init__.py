"""Models as the benchmarks open and run them."""
