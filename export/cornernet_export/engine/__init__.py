"""A bundle's TensorRT engine: built, verified, described."""
