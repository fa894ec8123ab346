"""AP from detections of a Ray cluster, against that of one process."""

from __future__ import annotations

import json

import pytest
from cases.cluster import ray_of_this_machine

from cornernet_bench.cli import main
from cornernet_train.cli import main as train


@pytest.fixture(scope="module")
def ray_address():
    with ray_of_this_machine() as address:
        yield address


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    assert train(["shapes", "--output", str(folder), "--images", "70", "--seed", "5"]) == 0
    text = (folder / "annotations.json").read_text()
    for ours, theirs in (("ant", "circle"), ("bee", "square"), ("cat", "ring")):  # the classes of the small network
        text = text.replace(f'"{theirs}"', f'"{ours}"')
    (folder / "annotations.json").write_text(text)
    return folder


def measure(model, scenes, report, *options):
    places = ("--annotations", scenes / "annotations.json", "--images", scenes / "images", "--json", report)
    return main(["accuracy", str(model), *map(str, places), *options])


@pytest.mark.slow
def test_ap_of_a_cluster_is_that_of_one_process_to_the_last_digit(bundle_path, scenes, tmp_path, ray_address):
    options = ("--flip",)
    assert measure(bundle_path, scenes, tmp_path / "one.json", *options) == 0
    assert measure(bundle_path, scenes, tmp_path / "ray.json", *options, "--ray", ray_address) == 0
    one, ray = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "ray"))
    assert one.pop("detect_ms") > 0
    assert ray.pop("detect_ms") > 0
    assert ray == one
    assert one["pictures"] == 70
    assert one["ar100"] > 0


@pytest.mark.slow
def test_a_picture_that_cannot_be_read_ends_it_as_in_one_process(bundle_path, scenes, tmp_path, ray_address, capsys):
    (tmp_path / "images").mkdir()
    for path in (scenes / "images").iterdir():
        (tmp_path / "images" / path.name).write_bytes(path.read_bytes() if path.stem != "000041" else b"no picture")
    (tmp_path / "annotations.json").write_bytes((scenes / "annotations.json").read_bytes())
    said = []
    for options in ((), ("--ray", ray_address)):
        assert measure(bundle_path, tmp_path, tmp_path / "report.json", *options) == 1
        said.append(capsys.readouterr().err)
    assert said[0] == said[1]
    assert "000041" in said[0]


def test_a_checkpoint_is_refused(checkpoint_path, scenes, tmp_path, capsys):
    assert measure(checkpoint_path, scenes, tmp_path / "report.json", "--ray", "local") == 1
    assert "--ray runs bundles and .onnx files; export it first: cornernet-export" in capsys.readouterr().err


def test_options_of_workers_need_a_cluster(bundle_path, scenes, tmp_path, capsys):
    assert measure(bundle_path, scenes, tmp_path / "report.json", "--workers", "2") == 1
    assert "--workers goes with --ray ADDRESS" in capsys.readouterr().err
