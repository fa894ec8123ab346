"""Checkpoints: bit for bit there and back, and a clear refusal of everything that is none."""

from __future__ import annotations

import io
import json
import pickle
import struct
from dataclasses import replace

import pytest
import torch
from cases.small import SMALL, SMALL_SPEC, small_model
from safetensors.torch import load_file, save_file

from cornernet_export.checkpoint import compare_tensors, load_checkpoint, save_checkpoint
from cornernet_export.model import CornerNet
from cornernet_runtime.bundle.records import to_json
from cornernet_runtime.bundle.spec import (
    SCHEMA_VERSION,
    DecodeParameters,
    NmsParameters,
    Normalisation,
    spec_to_text,
)
from cornernet_runtime.errors import CheckpointError, OutputError

CONFIG_TEXT = json.dumps({"schema_version": SCHEMA_VERSION, "config": to_json(SMALL)})
SPEC_TEXT = spec_to_text(SMALL_SPEC)


@pytest.fixture(scope="module")
def content(checkpoint_path):
    return checkpoint_path.read_bytes()


@pytest.fixture(scope="module")
def tensors(checkpoint_path):
    return load_file(checkpoint_path)


@pytest.fixture
def write(tmp_path, tensors):
    """Return a function that writes a checkpoint, whole but for what it is given."""

    def write(config=CONFIG_TEXT, spec=SPEC_TEXT, **changes):
        path = tmp_path / "some.safetensors"
        header = {"cornernet_config": config, "cornernet_spec": spec}
        save_file(
            changes.get("tensors", tensors), path, {key: text for key, text in header.items() if text is not None}
        )
        return path

    return write


def refusal(path):
    """Return the message with which the file is refused; it begins with its path."""
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message


def config_text(**changes):
    return json.dumps({"schema_version": SCHEMA_VERSION, "config": {**to_json(SMALL), **changes}})


def spec_text(**changes):
    return json.dumps({"schema_version": SCHEMA_VERSION, "spec": {**to_json(SMALL_SPEC), **changes}})


# There and back.


def test_every_tensor_comes_back_bit_for_bit(checkpoint_path):
    saved, loaded = small_model().state_dict(), load_checkpoint(checkpoint_path).model.state_dict()
    # Counted by PyTorch and used by nothing here, so not stored.
    stored = [name for name in saved if not name.endswith("num_batches_tracked")]
    assert list(saved) == list(loaded)
    assert [name for name in stored if not torch.equal(saved[name], loaded[name])] == []


def test_unusual_values_come_back_bit_for_bit(tmp_path):
    model = small_model()
    values = torch.tensor([-0.0, 1e-45, torch.finfo(torch.float32).max, float("inf")])
    with torch.no_grad():
        model.stem[0][0].weight.view(-1)[:4] = values
    save_checkpoint(tmp_path / "some.safetensors", model, SMALL_SPEC)
    loaded = load_checkpoint(tmp_path / "some.safetensors").model.stem[0][0].weight.view(-1)[:4]
    assert torch.equal(loaded.detach().view(torch.int32), values.view(torch.int32))


def test_config_and_spec_come_back(checkpoint_path):
    checkpoint = load_checkpoint(checkpoint_path)
    assert (checkpoint.model.config, checkpoint.spec) == (SMALL, SMALL_SPEC)


def test_no_field_of_the_spec_is_lost(tmp_path):
    spec = replace(
        SMALL_SPEC,
        name="näme with ünicode",
        class_names=("a b", "日本", 'quote"'),
        input_size=(31, 47),
        normalisation=Normalisation(
            channel_order="rgb", mean=(0.1, 0.2, 1 / 3), std=(0.4, 0.5, 0.6), pad=(1.0, 2.0, 3.0)
        ),
        decode=DecodeParameters(top_k=20, candidates=300, embedding_distance=0.3, reject_empty=True),
        nms=NmsParameters(method="linear", sigma=0.7, iou_threshold=0.4, score_floor=0.002, max_detections=50),
    )
    save_checkpoint(tmp_path / "some.safetensors", small_model(), spec)
    assert load_checkpoint(tmp_path / "some.safetensors").spec == spec


def test_no_field_of_the_config_is_lost(tmp_path):
    config = replace(
        SMALL,
        name="other",
        stacks=1,
        stem=(8, 16, 16),
        modules=(1, 2, 1),
        unit="fire",
        upsample="deconvolution",
        branch_kernel=1,
        pool_width=6,
    )
    spec = replace(SMALL_SPEC, stride=8, modulus=32, input_size=(31, 31), largest_size=(31, 31))
    save_checkpoint(tmp_path / "some.safetensors", CornerNet(config), spec)
    assert load_checkpoint(tmp_path / "some.safetensors").model.config == config


def test_loaded_network_is_in_inference_mode(checkpoint_path):
    assert not any(module.training for module in load_checkpoint(checkpoint_path).model.modules())


def test_training_mode_survives_saving(tmp_path):
    model = small_model().train()
    save_checkpoint(tmp_path / "some.safetensors", model, SMALL_SPEC)
    assert model.training


def test_memory_format_of_the_weights_does_not_matter(tmp_path):
    model = small_model().to(memory_format=torch.channels_last)
    save_checkpoint(tmp_path / "some.safetensors", model, SMALL_SPEC)
    loaded = load_checkpoint(tmp_path / "some.safetensors").model
    assert torch.equal(loaded.stem[0][0].weight, small_model().stem[0][0].weight)


def test_file_is_plain_safetensors_with_two_texts_in_its_header(content):
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    assert set(header["__metadata__"]) == {"cornernet_config", "cornernet_spec"}
    assert json.loads(header["__metadata__"]["cornernet_config"]) == json.loads(CONFIG_TEXT)


def test_saving_where_nothing_can_be_written_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OutputError, match="cannot write"):
        save_checkpoint(tmp_path / "file" / "some.safetensors", small_model(), SMALL_SPEC)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "kept")]


def test_saving_over_a_checkpoint_replaces_it_and_leaves_no_other_file(tmp_path):
    path = tmp_path / "some.safetensors"
    for name in ("first", "second"):
        save_checkpoint(path, small_model(), replace(SMALL_SPEC, name=name))
    assert load_checkpoint(path).spec.name == "second"
    assert list(tmp_path.iterdir()) == [path]


# Files that are no checkpoint.


def test_missing_file(tmp_path):
    assert "no such file" in refusal(tmp_path / "none.safetensors")


def test_folder(tmp_path):
    assert "is a folder; give the path of a checkpoint" in refusal(tmp_path)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 2000, 60_000, 300_000, -1], ids=str)
def test_truncated_file(tmp_path, content, size):
    path = tmp_path / "some.safetensors"
    path.write_bytes(content[:size])
    message = refusal(path)
    assert "not a whole safetensors file" in message
    assert "truncated" in message
    assert "\n" not in message


def test_file_with_more_behind_it(tmp_path, content):
    path = tmp_path / "some.safetensors"
    path.write_bytes(content + b"more")
    assert "not a whole safetensors file" in refusal(path)


@pytest.mark.parametrize(
    "foreign",
    [
        b"This is a text file of several words.\n" * 100,
        b"\x00" * 100,
        b"\xff" * 100,
        b"PK\x03\x04" + b"\x00" * 100,
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345\n",
    ],
    ids=["text", "zeros", "ones", "zip", "git_lfs_pointer"],
)
def test_foreign_file(tmp_path, foreign):
    path = tmp_path / "some.safetensors"
    path.write_bytes(foreign)
    assert "not a whole safetensors file" in refusal(path)


class Armed:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("save", [lambda value, path: path.write_bytes(pickle.dumps(value)), torch.save])
def test_pickle_under_our_name_is_refused_and_not_executed(tmp_path, save):
    path, trace = tmp_path / "some.safetensors", tmp_path / "executed"
    save({"weight": torch.zeros(3), "armed": Armed(trace)}, path)
    assert "not a whole safetensors file" in refusal(path)
    assert not trace.exists()
    content = path.read_bytes()
    # Not by its name: torch.load takes a name like this one for safetensors.
    torch.load(io.BytesIO(content), weights_only=False) if save is torch.save else pickle.loads(content)  # noqa: S301
    assert trace.exists(), "the file must be dangerous for this to say anything"


def test_safetensors_of_another_project(tmp_path, tensors):
    path = tmp_path / "some.safetensors"
    save_file(tensors, path, {"format": "pt"})
    message = refusal(path)
    assert "not a cornernet-trt checkpoint: its header lacks cornernet_config and cornernet_spec" in message


@pytest.mark.parametrize("missing", ["config", "spec"])
def test_header_with_one_of_the_two_texts(write, missing):
    assert "not a cornernet-trt checkpoint" in refusal(write(**{missing: None}))


# Headers that do not hold.


@pytest.mark.parametrize("text", ["config", "spec"])
def test_newer_schema(write, text):
    newer = json.dumps({"schema_version": SCHEMA_VERSION + 1, text: {"anything": "new"}})
    message = refusal(write(**{text: newer}))
    assert f"written with schema {SCHEMA_VERSION + 1}, this version reads up to {SCHEMA_VERSION}" in message
    assert "update your checkout of cornernet-trt" in message


@pytest.mark.parametrize("text", ["config", "spec"])
@pytest.mark.parametrize(
    "broken",
    [
        "",
        "{",
        "no JSON",
        "[]",
        "3",
        "null",
        "{}",
        '{"schema_version": "1"}',
        '{"schema_version": true}',
        '{"schema_version": 0}',
        '{"schema_version": 1}',
        '{"schema_version": 1, "config": [], "spec": []}',
        '{"schema_version": 1, "config": {}, "spec": {}}',
    ],
)
def test_header_text_that_is_no_record_of_ours(write, text, broken):
    assert "\n" not in refusal(write(**{text: broken}))


@pytest.mark.parametrize("text", ["config", "spec"])
@pytest.mark.parametrize(
    "hostile", ["[" * 100_000, '{"schema_version": ' + "1" * 5000 + "}"], ids=["deep", "long_number"]
)
def test_json_that_the_parser_gives_up_on(write, text, hostile):
    refusal(write(**{text: hostile}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stacks": "two"}, "config.stacks: expected int, got str 'two'"),
        ({"stacks": 2.0}, "config.stacks: expected int"),
        ({"stem": 3}, "config.stem: expected a list"),
        ({"dims": [16, None, 24]}, r"config.dims[1]: expected int"),
        ({"unit": "dense"}, "config.unit: expected one of residual, fire"),
        ({"colour": "red"}, "config.colour: unknown field"),
        ({"stacks": 0}, "positive counts"),
        ({"stem": [8, 24]}, "the stem ends in 24 channels"),
        ({"branch_kernel": -1}, "branch_kernel"),
    ],
    ids=str,
)
def test_field_of_the_config_that_does_not_hold(write, changes, message):
    assert message in refusal(write(config=config_text(**changes)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": ["ant", "ant", "cat"]}, "expected distinct, non-empty names"),
        ({"class_names": []}, "expected distinct, non-empty names"),
        ({"input_size": [64, 95]}, "nearest valid: 63 and 79"),
        ({"input_size": [63]}, "spec.input_size: expected 2 items"),
        ({"largest_size": [47, 95]}, "expected at most (47, 95), got (63, 95)"),
        ({"modulus": 6}, "expected a multiple of the stride 4"),
        ({"decode": {"top_k": 0}}, "top_k"),
        ({"nms": {"sigma": float("nan")}}, "spec.nms.sigma: expected a finite number"),
        ({"precision": "fp64"}, "spec.precision: expected one of fp32, fp16, int8"),
    ],
    ids=str,
)
def test_field_of_the_spec_that_does_not_hold(write, changes, message):
    assert message in refusal(write(spec=spec_text(**changes)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"class_names": ["ant", "bee"]}, "(2, 4, 16)"),
        ({"class_names": ["ant", "bee", "cat", "dog"]}, "(4, 4, 16)"),
        ({"stride": 8}, "(3, 8, 16)"),
        ({"modulus": 32, "input_size": [63, 95]}, "(3, 4, 32)"),
    ],
    ids=str,
)
def test_spec_of_another_network_than_the_config(write, changes, said):
    message = refusal(write(spec=spec_text(**changes)))
    assert f"classes, stride, modulus are {said} in the spec, (3, 4, 16) in the config" in message


# Headers and tensors that disagree.


def test_ten_differences_and_the_count_of_the_rest(write):
    message = refusal(write(tensors={"foreign.weight": torch.zeros(2, 3)}))
    lines = message.splitlines()
    names = [name for name in small_model().state_dict() if not name.endswith("num_batches_tracked")]
    assert lines[0].endswith(f"its tensors are not those of a small; {len(names) + 1} places differ:")
    assert lines[1].split() == ["tensor", "expected", "found"]
    assert [line.split()[0] for line in lines[2:12]] == names[:10]
    assert lines[2].split("  ", 1)[1].split() == ["float32", "[8,", "3,", "7,", "7]", "-"]
    assert lines[12:] == [f"... and {len(names) + 1 - 10} more"]


def test_up_to_ten_differences_are_all_listed(write, tensors):
    wrong = dict(tensors)
    kernel = wrong.pop("stem.0.0.weight")
    wrong["stem.0.1.weight"] = wrong["stem.0.1.weight"].half()
    wrong["stem.0.1.bias"] = torch.zeros(9)
    wrong["top_left.9.heat.weight"] = kernel
    lines = refusal(write(tensors=wrong)).splitlines()
    assert lines[0].endswith("its tensors are not those of a small; 4 places differ:")
    assert [" ".join(line.split()) for line in lines[2:]] == [
        "stem.0.0.weight float32 [8, 3, 7, 7] -",
        "stem.0.1.weight float32 [8] float16 [8]",
        "stem.0.1.bias float32 [8] float32 [9]",
        "top_left.9.heat.weight - float32 [8, 3, 7, 7]",
    ]


def test_columns_of_the_table_are_aligned(write):
    lines = refusal(write(tensors={"foreign.weight": torch.zeros(2, 3)})).splitlines()[1:12]
    assert len({line.index(word) for line, word in zip(lines, ["expected", *["float32"] * 10], strict=True)}) == 1


def test_another_number_of_stacks_in_the_header(write):
    message = refusal(write(config=config_text(stacks=3)))
    assert "hourglasses.2.keep.0.first.0.weight" in message


def test_widths_far_beyond_the_tensors_are_refused_without_making_them(write):
    """Two hundred thousand channels take 1.4 TB a convolution; a few thousand would only be slow to fail."""
    refusal(write(config=config_text(dims=[16, 16, 200_000])))


def test_equal_tensors_have_no_differences(tensors):
    assert compare_tensors(tensors, dict(tensors)) == []
