"""Every test of this folder decodes in both ways."""

from __future__ import annotations

import pytest

from cornernet_runtime.processing import decode as decoding


@pytest.fixture(scope="module", autouse=True, params=[0, 10**9], ids=["cells", "maps"])
def both_ways(request):
    """Have everything decoded by comparing cells with their neighbours, and by comparing whole maps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "FEW", request.param)
        yield
