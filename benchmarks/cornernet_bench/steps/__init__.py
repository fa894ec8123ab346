"""Steps of a model measured alone."""
