"""From a trained CornerNet to a verified bundle: reference model, checkpoints, ONNX."""
