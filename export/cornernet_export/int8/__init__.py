"""Networks in INT8: ranges, groups of layers, and the pairs of nodes that quantise."""
