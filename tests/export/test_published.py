"""Published checkpoints: names by hand, files that would execute something, and files that are none."""

import os

import pytest
import torch

from cornernet_export.published import load_published
from cornernet_export.published_names import translate
from cornernet_runtime.errors import CheckpointError

NAMES = [
    ("princeton", "residual", "pre.0.conv.weight", "stem.0.0.weight"),
    ("princeton", "residual", "pre.1.skip.1.bias", "stem.1.skip.1.bias"),
    ("princeton", "residual", "kps.0.low2.low2.up1.1.bn2.weight", "hourglasses.0.inner.inner.keep.1.second.1.weight"),
    (
        "princeton",
        "residual",
        "kps.1.low2.low2.low2.low2.low2.3.conv1.weight",
        "hourglasses.1.inner.inner.inner.inner.inner.3.first.0.weight",
    ),
    ("princeton", "residual", "tl_cnvs.1.p1_conv1.conv.weight", "top_left.1.vertical.0.weight"),
    ("princeton", "residual", "br_cnvs.0.p_bn1.running_var", "bottom_right.0.after_pool.1.running_var"),
    ("princeton", "residual", "tl_cnvs.0.conv1.weight", "top_left.0.skip.0.weight"),
    ("princeton", "residual", "inters_.0.1.weight", "merge_inputs.0.1.weight"),
    ("princeton", "residual", "cnvs_.0.0.weight", "merge_outputs.0.0.weight"),
    ("princeton", "residual", "inters.0.conv2.weight", "merged.0.second.0.weight"),
    ("princeton", "residual", "br_regrs.1.1.bias", "bottom_right.1.offset.2.bias"),
    ("lite", "fire", "hg.hgs.0.up1.0.conv_3x3.weight", "hourglasses.0.keep.0.depthwise.weight"),
    ("lite", "fire", "hg.hgs.1.low2.up2.bias", "hourglasses.1.inner.up.bias"),
    ("lite", "fire", "hg.pre.2.conv1.weight", "stem.2.first.0.weight"),
    ("lite", "fire", "tl_modules.0.conv2.bn.weight", "top_left.0.refine.1.weight"),
    ("lite", "fire", "tl_offs.0.0.conv.bias", "top_left.0.offset.0.bias"),
    ("mmdetection", "residual", "backbone.stem.1.0.downsample.0.weight", "stem.1.skip.0.weight"),
    ("mmdetection", "residual", "backbone.remap_convs.0.bn.weight", "merge_outputs.0.1.weight"),
    ("mmdetection", "residual", "backbone.conv1x1s.0.conv.weight", "merge_inputs.0.0.weight"),
    ("mmdetection", "residual", "bbox_head.br_pool.1.direction2_conv.bn.bias", "bottom_right.1.horizontal.1.bias"),
    ("mmdetection", "residual", "bbox_head.tl_pool.0.aftpool_conv.conv.weight", "top_left.0.after_pool.0.weight"),
    ("mmdetection", "residual", "bbox_head.tl_emb.1.1.conv.weight", "top_left.1.embed.2.weight"),
]


@pytest.mark.parametrize(("family", "unit", "theirs", "ours"), NAMES, ids=[name[2] for name in NAMES])
def test_a_tensor_is_found_under_our_name(family, unit, theirs, ours):
    assert translate(theirs, family, unit) == ours


class Trap:
    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_execute_something_is_refused_and_not_run(tmp_path, zipped):
    path, marker = tmp_path / "trap.pkl", tmp_path / "ran"
    torch.save({"state_dict": {"kps.0": Trap(marker)}}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="refused"):
        load_published(path)
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"hello, I am a text", b"PK\x03\x04 cut"])
def test_what_is_no_checkpoint_is_named(tmp_path, content):
    path = tmp_path / "some.pkl"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"some\.pkl"):
        load_published(path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.95])
def test_a_truncated_checkpoint_is_refused(tmp_path, zipped, part):
    path = tmp_path / "cut.pkl"
    torch.save({"module.kps.0.x": torch.ones(1000)}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(CheckpointError, match=r"cut\.pkl"):
        load_published(path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["module.hg.hgs.0.x", "module.att_modules.0.x"], "Saccade"),
        (["layer1.weight"], "no CornerNet that is known here"),
        (["module.kps.0.x"], "no heat branch"),
    ],
)
def test_another_network_is_refused_by_name(tmp_path, names, message):
    path = tmp_path / "other.pkl"
    torch.save({name: torch.ones(1) for name in names}, path)
    with pytest.raises(CheckpointError, match=message):
        load_published(path)
