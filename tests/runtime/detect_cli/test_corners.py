"""What --corners draws, and what is said of scales."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cases.detect_cli import errors_in
from cases.small import SMALL_SPEC

from cornernet_export.targets import encode_boxes, ideal_maps
from cornernet_runtime.bundle.spec import spec_to_text
from cornernet_runtime.detect.images import heat_on_frame
from cornernet_runtime.pictures import read_picture
from cornernet_runtime.processing.geometry import fit, place


def test_corners_draws_both_heat_maps_and_a_legend(detect, pictures, tmp_path):
    assert detect(pictures / "a.png", "--corners", "--output", tmp_path / "corners")[0] == 0
    assert detect(pictures / "a.png", "--output", tmp_path / "boxes")[0] == 0
    picture, boxes = (read_picture(tmp_path / name / "a.png") for name in ("corners", "boxes"))
    # The least whole zoom that makes the longer side 640 pixels is 4; the legend stands below.
    assert picture.shape[1] == 4 * 190
    assert picture.shape[0] > 4 * 126
    assert boxes.shape == (126, 190, 3)
    blue, _, red = picture[: 4 * 126].astype(int).transpose(2, 0, 1)
    far = picture[4 * 126 - 3, 3].astype(int)  # a corner of the picture without any heat
    # Box "bee": warm at its top-left corner, cool at its bottom-right one, outside of the brackets on both.
    assert (red - blue)[4 * 40 : 4 * 44, 4 * 100 : 4 * 104].max() > 100
    assert (blue - red)[4 * 106 : 4 * 110, 4 * 157 : 4 * 161].max() > 100
    assert abs(far[0] - far[2]) < 50


@pytest.mark.parametrize("views", [["--flip"], ["--scales", "0.5,1"], ["--scales", "0.5,1", "--flip"]], ids="-".join)
def test_corners_with_several_views_shows_the_heat_of_the_largest(detect, pictures, tmp_path, views):
    status, _, errors = detect(pictures / "a.png", "--corners", *views, "--output", tmp_path / "corners")
    assert (status, errors_in(errors)) == (0, [])
    picture = read_picture(tmp_path / "corners" / "a.png").astype(int)
    assert picture.shape[1] == 4 * 190
    blue, _, red = picture[: 4 * 126].transpose(2, 0, 1)
    # Box "bee" as above: its heat is where it is without these options, neither mirrored nor smaller.
    assert (red - blue)[4 * 40 : 4 * 44, 4 * 100 : 4 * 104].max() > 100
    assert (blue - red)[4 * 106 : 4 * 110, 4 * 157 : 4 * 161].max() > 100


@pytest.mark.parametrize("frame_size", [(126, 190), (63, 95), (40, 300), (480, 200)])
def test_heat_on_the_frame_peaks_in_the_cell_of_the_corner(frame_size):
    placement = fit(frame_size, SMALL_SPEC.input_size)
    height, width = frame_size
    box = np.array([[0.3 * width, 0.4 * height, 0.8 * width, 0.9 * height]])
    sizes = {"map_size": SMALL_SPEC.map_size, "input_size": SMALL_SPEC.input_size}
    maps = ideal_maps(encode_boxes(placement.to_input(box), np.array([1]), classes=3, **sizes))
    for heat, corner in ((maps.tl_heat, box[0, :2]), (maps.br_heat, box[0, 2:])):
        level = heat_on_frame(heat, placement)
        assert level.shape == frame_size
        assert level.dtype == np.float32
        assert level.min() >= 0
        # Samples miss the middle of the cell by up to an eighth of it, in x and in y, and once more in the frame.
        assert 0.6 < level.max() <= 1
        y, x = np.unravel_index(level.argmax(), level.shape)
        # The middle of the cell, which is 4 pixels of the input wide, is at most half a cell from the corner; half a
        # pixel of the input and half a one of the frame are lost in resizing twice.
        reach = 2.5 * max(old / new for old, new in zip(frame_size, placement.size, strict=True)) + 0.5
        assert abs(x + 0.5 - corner[0]) <= reach
        assert abs(y + 0.5 - corner[1]) <= reach


@pytest.mark.parametrize(
    ("frame_size", "scale"), [((126, 190), 1.0), ((63, 95), 1.0), ((63, 94), 1.5), ((700, 90), 1.0)]
)
def test_heat_of_a_native_view_peaks_in_the_cell_of_the_corner(frame_size, scale):
    spec = replace(SMALL_SPEC, largest_size=(303, 303), dynamic=True, geometry="native")
    (placement,) = place(frame_size, spec, [scale])
    height, width = frame_size
    box = np.array([[0.3 * width, 0.4 * height, 0.8 * width, 0.9 * height]])
    rows, columns = placement.input_size
    sizes = {"map_size": ((rows + 1) // 4, (columns + 1) // 4), "input_size": (rows, columns)}
    maps = ideal_maps(encode_boxes(placement.to_input(box), np.array([1]), classes=3, **sizes))
    for heat, corner in ((maps.tl_heat, box[0, :2]), (maps.br_heat, box[0, 2:])):
        level = heat_on_frame(heat, placement)
        assert level.shape == frame_size
        y, x = np.unravel_index(level.argmax(), level.shape)
        # As above, and one pixel of the input more, for native resizing cuts sides and loses the last row.
        reach = 3.5 / placement.scale[0] + 0.5
        assert abs(x + 0.5 - corner[0]) <= reach
        assert abs(y + 0.5 - corner[1]) <= reach


@pytest.mark.parametrize(
    ("scales", "note"),
    [
        ("0.5,1,1.5", "scales 0.5, 1, 1.5 become 0.333, 0.667, 1 of what fills it"),
        ("2", "scales 2 become 1 of what fills it"),
        ("1.5,0.75", "scales 1.5, 0.75 become 1, 0.5 of what fills it"),
    ],
)
def test_scales_that_a_fixed_input_cannot_take_are_noted_with_what_becomes_of_them(detect, pictures, scales, note):
    status, output, errors = detect(pictures / "a.png", "--scales", scales)
    assert (status, output) == (0, "")
    assert errors.count(f"the input of this model is fixed: {note}\n") == 1


@pytest.mark.parametrize("options", [[], ["--scales", "1"], ["--scales", "0.5,1"], ["--scales", "0.5"], ["--flip"]])
def test_scales_that_a_fixed_input_can_take_need_no_note(detect, pictures, options):
    assert "the input of this model is fixed" not in detect(pictures / "a.png", *options)[2]


def test_a_model_of_any_size_takes_all_scales_without_a_note(detect, pictures, tmp_path, write_onnx, small_outputs):
    spec = replace(SMALL_SPEC, largest_size=(303, 303), dynamic=True, geometry="native")
    image = ("image", ("batch", 3, "height", "width"))
    model = write_onnx(tmp_path / "any.onnx", small_outputs, {"cornernet": spec_to_text(spec)}, image)
    status, _, errors = detect(pictures / "a.png", "--scales", "0.5,1,1.5", "--score", "1", model=model)
    assert (status, errors_in(errors)) == (0, [])
    assert "1 picture, 0 objects" in errors
    assert "the input of this model is fixed" not in errors
