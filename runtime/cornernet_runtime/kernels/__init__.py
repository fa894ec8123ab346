"""What the GPU does around the network, in CUDA: frames to input, corner maps to candidates, candidates to detections.

A ``.cu`` file of this folder holds kernels, each taking one structure by value; the module of the same name knows their
sizes and says how to launch them (``Launch``). Nothing here needs a GPU to be imported.
"""
