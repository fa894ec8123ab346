"""``cornernet-bench kernels``: the CUDA kernels, checked and timed."""
