"""Adds the tests' noise to the processes that they start; this folder is on PYTHONPATH where it is asked for.

Python imports one module of this name. The next one on the path, which a test may have put there, is run from here.
"""

import importlib.machinery
import importlib.util
import sys
from pathlib import Path

import rounding

rounding.install()

HERE = Path(__file__).parent
spec = importlib.machinery.PathFinder.find_spec(
    "sitecustomize", [folder for folder in sys.path if Path(folder).resolve() != HERE]
)
if spec is not None:
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
