"""Published checkpoints: names by hand, files that would execute something, and files that are none."""

import os

import pytest
import torch
from cases import published_layouts

from cornernet_export.checkpoint import load_checkpoint
from cornernet_export.coco import COCO_CLASSES
from cornernet_export.model import CornerNet
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


# Whole checkpoints, of the published sizes. Their tensors are one number seen many times, so the files are small.

C104, SQUEEZE = ("cornernet-104", 201_035_212), ("cornernet-squeeze", 31_771_852)
FAMILIES = {
    "princeton": (dict(published_layouts.princeton()), "module.", *C104),
    "lite": (dict(published_layouts.princeton(published_layouts.LITE)), "module.", *C104),
    "squeeze": (dict(published_layouts.princeton(published_layouts.SQUEEZE)), "module.", *SQUEEZE),
    "mmdetection": (dict(published_layouts.mmdetection()), "", *C104),
}


def write_published(path, shapes, prefix="", *, wrapped=False, zipped=False):
    state = {f"{prefix}{name}": torch.tensor(0.0).expand(shape) for name, shape in shapes.items()}
    content = {"meta": {"epoch": 1}, "state_dict": state} if wrapped else state
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_of_a_published_checkpoint_has_its_place(tmp_path, family):
    shapes, prefix, arch, parameters = FAMILIES[family]
    wrapped = family == "mmdetection"
    path = write_published(tmp_path / "published.pkl", shapes, prefix, wrapped=wrapped, zipped=wrapped)
    config, spec, tensors = load_published(path)
    with torch.device("meta"):
        model = CornerNet(config)
    expected = {name: value for name, value in model.state_dict().items() if "num_batches_tracked" not in name}
    assert {name: tuple(value.shape) for name, value in tensors.items()} == {
        name: tuple(value.shape) for name, value in expected.items()
    }
    assert (config.name, spec.name) == (arch, arch)
    assert sum(value.numel() for value in model.parameters()) == parameters
    assert spec.class_names == COCO_CLASSES


@pytest.mark.parametrize("family", FAMILIES)
def test_the_family_brings_its_way_with_pictures_along(tmp_path, family):
    shapes, prefix, _, _ = FAMILIES[family]
    _, spec, _ = load_published(write_published(tmp_path / "published.pkl", shapes, prefix))
    rgb = family == "mmdetection"
    assert spec.normalisation.channel_order == ("rgb" if rgb else "bgr")
    grey_levels = [255 * value for value in spec.normalisation.mean]
    # As published: mmdetection's in grey levels, the others' as fractions.
    assert grey_levels == pytest.approx([123.675, 116.28, 103.53] if rgb else [104.0136, 114.0342, 119.9166], abs=1e-3)
    assert spec.normalisation.pad == pytest.approx((123.675, 116.28, 103.53) if rgb else (0, 0, 0))
    assert (spec.nms.pixel_extent, spec.decode.reject_empty) == ((0, True) if rgb else (1, False))
    assert (spec.decode.top_k, spec.decode.candidates) == ((20, 100) if family == "squeeze" else (100, 1000))
    assert (spec.stride, spec.modulus, spec.input_size) == (8 if family == "squeeze" else 4, 128, (511, 511))


def test_ones_own_classes_are_counted_and_can_be_named(tmp_path):
    shapes = dict(published_layouts.princeton(published_layouts.SQUEEZE, classes=3))
    _, spec, _ = load_published(write_published(tmp_path / "own.pkl", shapes, "module."))
    assert spec.class_names == ("class_0", "class_1", "class_2")


@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "c", "d"), ("a", "b", "b"), ("a", "b", "")])
def test_class_names_of_the_wrong_count_or_doubled_are_refused(checkpoint_path, names):
    with pytest.raises(CheckpointError, match=r"it has 3 classes, \d names were given|expected distinct, non-empty"):
        load_checkpoint(checkpoint_path, class_names=names)


def test_wrong_tensors_are_listed_ten_at_most(tmp_path):
    shapes = dict(published_layouts.princeton(published_layouts.SQUEEZE))
    missing = [name for name in shapes if name.startswith("hg.hgs.0.low2.low2.low2.low2")]
    for name in missing:
        del shapes[name]
    shapes["tl_tags.0.1.weight"] = (2, 256, 1, 1)
    shapes["hg.pre.0.conv.extra"] = (1,)
    path = write_published(tmp_path / "wrong.pkl", shapes, "module.")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    lines = str(caught.value).splitlines()
    stored = sum(not name.endswith("num_batches_tracked") for name in missing)
    assert lines[0].endswith(f"not those of a cornernet-squeeze; {stored + 2} places differ:")
    assert len(lines) == 1 + 1 + 10 + 1
    assert lines[-1] == f"... and {stored + 2 - 10} more"


def test_a_misshapen_and_an_unexpected_tensor_are_named_with_both_shapes(tmp_path):
    shapes = dict(published_layouts.princeton(published_layouts.SQUEEZE))
    shapes["tl_tags.0.1.weight"] = (2, 256, 1, 1)
    shapes["hg.pre.0.conv.extra"] = (1,)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(write_published(tmp_path / "wrong.pkl", shapes, "module."))
    rows = {line.split()[0]: line for line in str(caught.value).splitlines()[2:]}
    assert rows["top_left.0.embed.2.weight"].split("  ", 1)[1].split() == (
        ["float32", "[1,", "256,", "1,", "1]", "float32", "[2,", "256,", "1,", "1]"]
    )
    assert rows["stem.0.0.extra"].split()[1:] == ["-", "float32", "[1]"]


@pytest.mark.parametrize("arch", ["cornernet-104", "cornernet-tiny"])
def test_another_architecture_than_asked_for_is_refused(tmp_path, arch):
    shapes = dict(published_layouts.princeton(published_layouts.SQUEEZE))
    with pytest.raises(CheckpointError, match=f"it is a cornernet-squeeze, not a {arch}; leave --arch away"):
        load_checkpoint(write_published(tmp_path / "wrong.pkl", shapes, "module."), arch=arch)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_cut_anywhere_is_refused_without_a_traceback(tmp_path, zipped):
    path = tmp_path / "cut.pkl"
    state = {f"module.kps.0.x{number}": torch.ones(2) for number in range(4)}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for end in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:end])
        with pytest.raises(CheckpointError, match=r"cut\.pkl"):
            load_published(path)


def squeeze_state():
    shapes = published_layouts.princeton(published_layouts.SQUEEZE)
    return {f"module.{name}": torch.tensor(0.0).expand(shape) for name, shape in shapes}


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("module.tl_heats.1.1.weight", torch.tensor(1.0), r"has shape \[\], whose first number should be the classes"),
        ("module.tl_heats.1.1.weight", torch.zeros(0, 256, 1, 1), r"has shape \[0, 256, 1, 1\]"),
        ("module.tl_heats.1.1.weight", torch.tensor(0.0).expand(10**9, 256, 1, 1), r"has shape \[1000000000, "),
        ("hg.pre.0.conv.weight", torch.zeros(128, 3, 7, 7), "tensor hg.pre.0.conv.weight stands there twice"),
        ("module.hg.pre.0.conv.weight", torch.zeros(128, 3, 7, 7, dtype=torch.int8), "is torch.int8, not a floating"),
    ],
)
def test_a_tensor_that_cannot_be_is_named(tmp_path, name, tensor, message):
    path, state = tmp_path / "odd.pkl", squeeze_state()
    for key in (name, name.replace("tl_", "br_")):
        state[key] = tensor
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=message):
        load_published(path)


def test_what_was_refused_is_named_without_advice_to_allow_it(tmp_path, recwarn):
    path = tmp_path / "trap.pkl"
    torch.save({"state_dict": {"kps.0": Trap(tmp_path / "ran")}}, path)
    with pytest.raises(CheckpointError) as caught:
        load_published(path)
    assert "refused: it holds more than tensors and plain containers (" in str(caught.value)
    assert "mkdir" in str(caught.value)
    assert "weights_only" not in str(caught.value)
    assert not recwarn.list
