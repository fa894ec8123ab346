"""What a model is worth: accuracy and speed, measured on the artefact that is deployed."""
