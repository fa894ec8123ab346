from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
from cases.small import SMALL_SPEC

from cornernet_runtime.bundle.manifest import (
    MANIFEST_NAME,
    ONNX_NAME,
    CheckpointFile,
    DetectionCheck,
    Manifest,
    OutputCheck,
    Verification,
    read_manifest,
    write_manifest,
)
from cornernet_runtime.bundle.spec import SCHEMA_VERSION, DecodeParameters, NmsParameters, Normalisation
from cornernet_runtime.errors import BundleError

CONTENT = {ONNX_NAME: b"the network", "model.onnx.data": b"its weights"}
MANIFEST = Manifest(
    producer="cornernet-trt 0.1.0",
    spec=replace(
        SMALL_SPEC,
        class_names=("fox", "größe"),
        normalisation=Normalisation("rgb", (0.5, 0.4, 0.3), (0.1, 0.2, 0.3), (1.0, 2.0, 3.0)),
        decode=DecodeParameters(20, 100, 0.25, reject_empty=True),
        nms=NmsParameters("hard", 0.7, 0.4, 0.01, 0.0, 12),
        precision="fp16",
    ),
    files={name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()},
    verification=Verification(
        outputs=(OutputCheck("a -> b", "noise", "tl_heat", error=1.5e-6, tolerance=1e-4),),
        detections=(DetectionCheck("a -> b", "picture", reference=10, matched=9, extra=1, required=0.9),),
    ),
    checkpoint=CheckpointFile("foxes.safetensors", hashlib.sha256(b"trained").hexdigest()),
)


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)
    write_manifest(folder, MANIFEST)
    return folder


def edit(bundle, *path, to=...):
    """Replace the value at ``path`` in bundle.json; without ``to``, remove it."""
    data = place = json.loads((bundle / MANIFEST_NAME).read_text(encoding="utf-8"))
    for step in path[:-1]:
        place = place[step]
    if to is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    (bundle / MANIFEST_NAME).write_text(json.dumps(data), encoding="utf-8")


def error_of(bundle):
    with pytest.raises(BundleError) as caught:
        read_manifest(bundle)
    return str(caught.value)


def test_a_manifest_comes_back_equal(bundle):
    assert read_manifest(bundle) == MANIFEST


def test_bundle_json_is_an_object_with_these_keys(bundle):
    data = json.loads((bundle / MANIFEST_NAME).read_text(encoding="utf-8"))
    assert list(data) == ["schema_version", "producer", "spec", "files", "verification", "engine", "checkpoint"]
    assert data["schema_version"] == SCHEMA_VERSION
    assert data["spec"]["input_size"] == [63, 95]
    assert data["files"][ONNX_NAME] == hashlib.sha256(b"the network").hexdigest()


def test_an_exported_bundle_lists_every_file_it_has(bundle_path):
    manifest = read_manifest(bundle_path)
    assert {path.name for path in bundle_path.iterdir()} == {*manifest.files, MANIFEST_NAME}
    assert ONNX_NAME in manifest.files


def test_a_folder_without_bundle_json_is_no_bundle(tmp_path):
    assert error_of(tmp_path) == f"{tmp_path}: no bundle.json in it; cornernet-export makes bundles"


def test_a_folder_that_is_not_there_is_no_bundle(tmp_path):
    missing = tmp_path / "missing"
    assert error_of(missing) == f"{missing}: no bundle.json in it; cornernet-export makes bundles"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"bundle", b'{"schema_version": 1', b"\xff\xfe{}", b"[" * 100_000],
    ids=["empty", "open", "word", "cut", "not UTF-8", "too deep"],
)
def test_what_is_no_json_cannot_be_read(bundle, content):
    (bundle / MANIFEST_NAME).write_bytes(content)
    message = error_of(bundle)
    assert message.startswith(f"{bundle / MANIFEST_NAME}: cannot be read (")
    assert message.endswith("; export the bundle again")


def test_a_folder_in_place_of_bundle_json_cannot_be_read(bundle):
    (bundle / MANIFEST_NAME).unlink()
    (bundle / MANIFEST_NAME).mkdir()
    assert "bundle.json: cannot be read (" in error_of(bundle)


def test_a_newer_schema_is_refused_with_the_upgrade(bundle):
    # A newer schema has fields that this version does not know; they must not be what is complained of.
    edit(bundle, "schema_version", to=SCHEMA_VERSION + 1)
    edit(bundle, "novelty", to=1)
    assert error_of(bundle) == (
        f"{bundle / MANIFEST_NAME}: written with schema {SCHEMA_VERSION + 1}, this version reads up to "
        f"{SCHEMA_VERSION}; update your checkout of cornernet-trt"
    )


@pytest.mark.parametrize("version", [0, True, "1", None])
def test_what_is_no_schema_version_is_refused(bundle, version):
    edit(bundle, "schema_version", to=version)
    assert f"expected a schema_version of 1 to {SCHEMA_VERSION}, got {version!r}" in error_of(bundle)


def test_a_document_that_is_no_object_has_no_schema_version(bundle):
    (bundle / MANIFEST_NAME).write_text("[]")
    assert f"expected a schema_version of 1 to {SCHEMA_VERSION}, got None" in error_of(bundle)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["producer"], ..., "producer: missing"),
        (["files"], ..., "files: missing"),
        (["spec", "stride"], ..., "spec.stride: missing"),
        (["spec", "nms", "sigma"], "x", "spec.nms.sigma: expected a finite number, got str 'x'"),
        (["spec", "novelty"], 1, "spec.novelty: unknown field"),
        (["novelty"], 1, "novelty: unknown field"),
        (["files", ONNX_NAME], 5, "files.model.onnx: expected str, got int 5"),
        (["verification", "outputs", 0, "error"], None, "verification.outputs[0].error: expected a finite number"),
        (["spec", "input_size"], [64, 95], "input side 64: this network needs one less than a multiple of 16"),
        (["spec", "class_names"], [], "class_names: expected distinct, non-empty names, got []"),
    ],
)
def test_a_field_that_does_not_hold_is_named(bundle, path, value, message):
    edit(bundle, *path, to=value)
    found = error_of(bundle)
    assert found.startswith(f"{bundle / MANIFEST_NAME}: {message}")
    assert found.endswith("; export the bundle again")


@pytest.mark.parametrize("name", CONTENT)
def test_a_missing_file_is_named(bundle, name):
    (bundle / name).unlink()
    assert error_of(bundle) == f"{bundle}: bundle.json lists {name}, which is not there; export the bundle again"


@pytest.mark.parametrize("name", CONTENT)
@pytest.mark.parametrize("content", [b"", b"the networK", b"its weights and more"])
def test_a_file_that_was_changed_is_named(bundle, name, content):
    (bundle / name).write_bytes(content)
    assert error_of(bundle) == (
        f"{bundle / name}: its hash is not the one in bundle.json: the file was changed after export; "
        "export the bundle again"
    )


def test_a_hash_that_was_changed_is_noticed(bundle):
    edit(bundle, "files", ONNX_NAME, to="0" * 64)
    assert "its hash is not the one in bundle.json" in error_of(bundle)


@pytest.mark.parametrize(
    "name", ["../secret", "{outside}", "sub/../../secret", "sub/inside", "..", ".", "", "sub", "../bundle/model.onnx"]
)
def test_a_name_that_leaves_the_folder_is_not_followed(bundle, name):
    # Each file is there and has the right hash, so that only its place can be what is refused.
    secret = bundle.parent / "secret"
    (bundle / "sub").mkdir()
    for path in (secret, bundle / "sub" / "inside"):
        path.write_bytes(b"the network")
    name = name.format(outside=secret)
    edit(bundle, "files", name, to=hashlib.sha256(b"the network").hexdigest())
    assert error_of(bundle) == f"{bundle}: bundle.json lists {name}, which is not there; export the bundle again"


def test_a_bundle_is_read_by_a_relative_path(bundle, monkeypatch):
    monkeypatch.chdir(bundle)
    assert read_manifest(bundle.relative_to(bundle)) == MANIFEST


def test_a_file_closed_to_reading_is_a_bundle_error(open_folder, unprivileged):
    (open_folder / ONNX_NAME).write_bytes(CONTENT[ONNX_NAME])
    write_manifest(open_folder, replace(MANIFEST, files={ONNX_NAME: MANIFEST.files[ONNX_NAME]}))
    (open_folder / ONNX_NAME).chmod(0)
    with unprivileged():
        assert error_of(open_folder).startswith(f"{open_folder / ONNX_NAME}: cannot be read")


@pytest.mark.parametrize(
    ("error", "passed"), [(0.0, True), (1e-4, True), (1.1e-4, False), (float("inf"), False), (float("nan"), False)]
)
def test_an_output_passes_up_to_its_tolerance(error, passed):
    assert OutputCheck("a -> b", "noise", "tl_heat", error, tolerance=1e-4).passed is passed


@pytest.mark.parametrize(
    ("reference", "matched", "extra", "passed"),
    [
        (0, 0, 0, True),
        (0, 0, 1, False),
        (100, 100, 0, True),
        (100, 90, 10, True),
        (100, 89, 0, False),
        (100, 100, 11, False),
    ],
)
def test_detections_pass_when_a_tenth_at_most_is_missed_or_extra(reference, matched, extra, passed):
    # A little less than 0.9, for 1 - 0.9 is a little less than a tenth in binary.
    assert DetectionCheck("a -> b", "picture", reference, matched, extra, 0.9 - 1e-9).passed is passed


@pytest.mark.parametrize(
    ("output_error", "matched", "passed"), [(0.0, 10, True), (1.0, 10, False), (0.0, 0, False), (1.0, 0, False)]
)
def test_a_verification_passes_when_every_check_does(output_error, matched, passed):
    verification = Verification(
        outputs=tuple(OutputCheck("a -> b", "noise", "tl_heat", error, 0.1) for error in (0.0, output_error)),
        detections=tuple(DetectionCheck("a -> b", "picture", 10, count, 0, 1.0) for count in (10, matched)),
    )
    assert verification.passed is passed
