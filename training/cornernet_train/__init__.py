"""Training of CornerNet: scenes of shapes, losses, a loop."""
