"""Around the network, on the CPU: where a frame lies in the input, its levels, and from corner maps to boxes."""
