"""PyTorch as a backend: on the CPU, and on a GPU inside the pipeline."""
