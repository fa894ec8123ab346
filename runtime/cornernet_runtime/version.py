"""The version of the distribution, in the one place that packaging, bundles and reports read."""

__version__ = "0.1.0"
