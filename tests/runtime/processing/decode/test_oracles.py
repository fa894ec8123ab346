"""Two oracles that share no code with decode: plain loops, and PyTorch's pooling, topk and gather."""

from __future__ import annotations

import math

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from cases.decode import Pair, assert_same, loop_pairs, random_maps
from hypothesis import given, settings
from hypothesis import strategies as st

from cornernet_runtime.bundle.spec import DecodeParameters
from cornernet_runtime.processing.decode import decode
from cornernet_runtime.processing.maps import OUTPUT_NAMES, CornerMaps

SHAPES = [
    (1, 1, 1),
    (1, 1, 9),
    (1, 9, 1),
    (2, 2, 2),
    (1, 7, 13),
    (3, 13, 7),
    (5, 16, 16),
    pytest.param((80, 5, 6), marks=pytest.mark.slow),  # for the loops
    (80, 1, 1),
]


# The second oracle: PyTorch's operators, for maps without equal logits among the best, as topk is not stable.


def torch_corners(heat, embed, offset, top_k):
    heat, embed, offset = (torch.from_numpy(np.ascontiguousarray(values)) for values in (heat, embed, offset))
    height, width = heat.shape[1:]
    pooled = torch.nn.functional.max_pool2d(heat[None], kernel_size=3, stride=1, padding=1)[0]
    peaks = heat.masked_fill(heat != pooled, -torch.inf).flatten()
    logits, flat = peaks.topk(min(top_k, peaks.numel()))
    logits, flat = logits[logits > -torch.inf], flat[logits > -torch.inf]
    assert len(logits.unique()) == len(logits), "this oracle needs distinct logits"
    cell = flat % (height * width)
    position = torch.stack([cell % width, cell // width]).float() + offset.flatten(1).gather(
        1,
        cell.expand(2, -1),
    )
    return logits, flat // (height * width), position.T, embed.flatten()[cell]


def torch_pairs(maps, parameters):
    """Return what loop_pairs returns, for finite maps and reject_empty off."""
    tl_logits, tl_labels, tl_points, tl_embeddings = torch_corners(
        maps.tl_heat, maps.tl_embed, maps.tl_offset, parameters.top_k
    )
    br_logits, br_labels, br_points, br_embeddings = torch_corners(
        maps.br_heat, maps.br_embed, maps.br_offset, parameters.top_k
    )
    keep = (
        (tl_labels[:, None] == br_labels)
        & ((tl_embeddings[:, None] - br_embeddings).abs() <= parameters.embedding_distance)
        & (br_points >= tl_points[:, None]).all(2)
    )
    return [
        Pair(
            i,
            j,
            tl_logits[i].item(),
            br_logits[j].item(),
            int(tl_labels[i]),
            (*tl_points[i].tolist(), *br_points[j].tolist()),
        )
        for i, j in keep.nonzero().tolist()
    ]


@st.composite
def coarse_maps(draw):
    """Small maps of few distinct values, exact in float32: ties and special values are frequent."""
    classes, height, width = draw(st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)))
    special = draw(st.sampled_from([(), (), (math.nan,), (math.nan, math.inf, -math.inf)]))
    palettes = {
        "heat": (classes, (-3.0, -1.0, -0.0, 0.0, 1.0, 2.0, *special)),
        "embed": (1, (-0.5, 0.0, 0.25, 0.5, 0.75, *special)),
        "offset": (2, (-0.25, 0.0, 0.25, 0.5, 1.0, *special)),
    }
    arrays = []
    for name in OUTPUT_NAMES:
        channels, palette = palettes[name.split("_")[1]]
        shape = (channels, height, width)
        arrays.append(draw(hnp.arrays(np.float32, shape, elements=st.sampled_from(palette), fill=st.nothing())))
    return CornerMaps(*arrays)


coarse_parameters = st.builds(
    DecodeParameters,
    top_k=st.sampled_from([1, 2, 5, 12, 100]),
    candidates=st.sampled_from([1, 3, 12, 1000]),
    embedding_distance=st.sampled_from([0.0, 0.25, 0.5, 2.0]),
    reject_empty=st.booleans(),
)


# Against the oracles.


@settings(max_examples=150, deadline=None, derandomize=True)
@given(maps=coarse_maps(), parameters=coarse_parameters)
def test_coarse_maps_with_ties_and_special_values_decode_as_the_loops(maps, parameters):
    assert_same(decode(maps, parameters), loop_pairs(maps, parameters), parameters)


@pytest.mark.parametrize("reject_empty", [False, True])
@pytest.mark.parametrize("top_k", [3, 20, 100])
@pytest.mark.parametrize("shape", SHAPES)
def test_random_maps_decode_as_the_loops(shape, top_k, reject_empty):
    maps = random_maps(shape, seed=top_k)
    parameters = DecodeParameters(top_k=top_k, candidates=70, reject_empty=reject_empty)
    assert_same(decode(maps, parameters), loop_pairs(maps, parameters), parameters)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", SHAPES)
def test_random_maps_decode_as_pytorch_operators(shape, seed):
    maps = random_maps(shape, seed)
    parameters = DecodeParameters(top_k=40, candidates=100, embedding_distance=0.3)
    assert_same(decode(maps, parameters), torch_pairs(maps, parameters), parameters)


@pytest.mark.parametrize("seed", range(4))
def test_heavy_ties_among_peaks_and_pairs_go_to_the_lower_flat_index(seed):
    maps = random_maps((4, 9, 7), seed)
    ties = CornerMaps(*(np.floor(getattr(maps, name)) for name in OUTPUT_NAMES))
    parameters = DecodeParameters(top_k=30, candidates=60, embedding_distance=2.0)
    pairs = loop_pairs(ties, parameters)
    assert len(pairs) > 60
    assert_same(decode(ties, parameters), pairs, parameters)


def test_a_large_map_with_blobs_decodes_as_pytorch_operators():
    random = np.random.default_rng(7)
    maps = random_maps((80, 128, 128), seed=7)
    for heat in (maps.tl_heat, maps.br_heat):
        rows, columns = np.mgrid[:128, :128]
        for label, y, x in random.integers([0, 0, 0], [80, 128, 128], (60, 3)):
            blob = 12.0 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 8.0)
            heat[label % 4] += blob.astype(np.float32)
    parameters = DecodeParameters()
    pairs = torch_pairs(maps, parameters)
    assert len(pairs) > 100
    assert_same(decode(maps, parameters), pairs, parameters)
