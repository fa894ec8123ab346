"""The published pipeline, which models are compared with."""
