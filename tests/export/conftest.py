"""Engines built on the double of TensorRT."""

from __future__ import annotations

import pytest

from cornernet_export.engine.add import EngineRequest, add_engine
from cornernet_export.engine.build import EngineOptions


@pytest.fixture
def build(tensorrt, bundle, plugin_library):
    """Return a function that adds an engine with the plugin to a bundle; options as for EngineOptions."""

    assert tensorrt.configs == []

    def run(folder=bundle, plugin=plugin_library, **options):
        return add_engine(EngineRequest(folder, EngineOptions(plugin=plugin, **options)))

    return run
