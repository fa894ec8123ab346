"""Adds the tests' noise to the processes that they start; this folder is on PYTHONPATH where it is asked for."""

import rounding

rounding.install()
