from __future__ import annotations

import cv2
import numpy as np
import pytest

from cornernet_runtime import draw
from cornernet_runtime.detections import Detections
from cornernet_runtime.draw import draw_corners, draw_detections
from cornernet_runtime.errors import FrameError

SHAPES = [(1, 1), (1, 200), (200, 1), (2, 3), (20, 20), (64, 64), (255, 255), (3000, 4000)]


def found(boxes, labels=None, names=("car", "bird", "cup")):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    labels = np.zeros(len(boxes)) if labels is None else np.array(labels)
    scores = np.linspace(0.9, 0.5, len(boxes)).astype(np.float32)
    return Detections(boxes, scores, labels.astype(np.int64), tuple(names))


def plain(height, width, level=128):
    return np.full((height, width, 3), level, np.uint8)


def no_heat(frame):
    return np.zeros(frame.shape[:2], np.float32)


def luminance(pixels):
    """WCAG 2 relative luminance of BGR pixels, written from its definition."""
    share = np.asarray(pixels, np.float64)[..., ::-1] / 255
    linear = np.where(share <= 0.03928, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(one, other):
    light, dark = np.maximum(luminance(one), luminance(other)), np.minimum(luminance(one), luminance(other))
    return (light + 0.05) / (dark + 0.05)


def plates_of(frame, detections):
    colours = [draw._class_colour(int(label)) for label in detections.labels]
    return draw._plates(frame, detections, colours, draw._Style.of(frame))


def where(plate, picture):
    """Left, top, right, bottom of the one place where the whole plate stands in the picture, to the pixel."""
    windows = np.lib.stride_tricks.sliding_window_view(picture, plate.shape)[:, :, 0]
    rows, columns = np.nonzero((windows[:, :, 0, 0] == plate[0, 0]).all(axis=-1))
    places = [
        (column, row) for row, column in zip(rows, columns, strict=True) if np.array_equal(windows[row, column], plate)
    ]
    assert len(places) == 1, f"the plate stands in {len(places)} places"
    left, top = places[0]
    return left, top, left + plate.shape[1], top + plate.shape[0]


def test_no_detections_give_an_equal_copy():
    frame = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    picture = draw_detections(frame, found([]))
    assert np.array_equal(picture, frame)
    assert not np.shares_memory(picture, frame)


def test_the_frame_is_never_changed():
    frame = np.random.default_rng(1).integers(0, 256, (700, 90, 3), dtype=np.uint8)
    before = frame.copy()
    draw_detections(frame, found([[10, 10, 60, 300]]))
    draw_corners(frame, no_heat(frame), no_heat(frame), found([[10, 10, 60, 300]]))
    assert np.array_equal(frame, before)


def test_a_flipped_view_is_drawn_like_its_copy():
    frame = np.random.default_rng(2).integers(0, 256, (80, 90, 3), dtype=np.uint8)[::-1, ::-1]
    detections = found([[10, 30, 60, 70]])
    assert np.array_equal(draw_detections(frame, detections), draw_detections(frame.copy(), detections))
    one, other = (draw_corners(f, no_heat(f), no_heat(f), detections) for f in (frame, frame.copy()))
    assert np.array_equal(one, other)


def test_thin_lines_lie_on_the_first_and_last_pixels_of_the_box():
    picture = draw_detections(plain(64, 64), found([[10.2, 29.8, 40.4, 50.0]], names=["ox"]))
    colour = draw._class_colour(0)
    line = (picture == colour).all(axis=2)
    assert np.flatnonzero(line[33:47].all(axis=0)).tolist() == [10, 39]
    assert (29 + np.flatnonzero(line[29:, 11:39].all(axis=1))).tolist() == [30, 49]  # the label ends above 29


@pytest.mark.parametrize("level", [0, 64, 118, 128, 200, 255])
@pytest.mark.parametrize("label", [0, 1, 5, 40])
def test_box_lines_stand_out_3_to_1_from_a_plain_ground(level, label):
    frame = plain(480, 640, level)
    picture = draw_detections(frame, found([[200, 100, 400, 300]], [label], [f"c{i}" for i in range(41)]))
    strips = {
        "left": picture[140:290, 195:205],
        "right": picture[140:290, 395:405],
        "top": picture[95:105, 300:390].swapaxes(0, 1),
        "bottom": picture[295:305, 210:390].swapaxes(0, 1),
    }
    for side, strip in strips.items():
        strongest = contrast(strip, frame[0, 0]).max(axis=1)  # at each step along the side
        assert strongest.min() >= 3, side


def test_box_lines_on_noise_carry_their_own_contrast():
    frame = np.random.default_rng(3).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    strip = draw_detections(frame, found([[200, 100, 400, 300]]))[140:290, 195:205]
    contrasts = contrast(strip[:, 1:], strip[:, :-1])
    assert ((contrasts >= 9).sum(axis=1) >= 2).all()  # from an edge to the line and back
    assert (strip == strip[0]).all(axis=(0, 2)).sum() == 4  # 2 of line, 1 of edge on both sides


def test_every_grey_and_colour_of_ground_leaves_line_or_edge_at_3_to_1():
    grid = np.stack(np.meshgrid(*[np.arange(0, 256, 17)] * 3), axis=-1).reshape(-1, 3)
    for label in range(100):
        colour = draw._class_colour(label)
        assert np.maximum(contrast(grid, colour), contrast(grid, draw._ink_on(colour))).min() >= 3


def test_text_reads_on_the_plates_of_the_first_hundred_classes():
    for label in range(100):
        colour = draw._class_colour(label)
        assert contrast(colour, draw._ink_on(colour)) >= 4.5  # WCAG AA for text
        assert contrast(colour, (0, 0, 0)) >= 9  # what the head of the module promises


def test_ink_is_the_stronger_of_black_and_white_on_any_colour():
    grid = np.stack(np.meshgrid(*[np.arange(0, 256, 15)] * 3), axis=-1).reshape(-1, 3)
    for colour in grid.tolist():
        best = max(contrast(colour, (0, 0, 0)), contrast(colour, (255, 255, 255)))
        assert contrast(colour, draw._ink_on(tuple(colour))) == pytest.approx(best)


def test_class_colours_differ_and_stay():
    colours = [draw._class_colour(label) for label in range(500)]
    assert len(set(colours)) == 500
    assert colours == [draw._class_colour(label) for label in range(500)]
    first = np.array(colours[:20], float)
    distances = np.linalg.norm(first[:, None] - first, axis=-1)[~np.eye(20, dtype=bool)]
    assert distances.min() >= 15


@pytest.mark.parametrize(
    "simulation",
    [
        # Machado, Oliveira and Fernandes 2009, severity 1, linear RGB: protanopia, deuteranopia, tritanopia.
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
    ],
)
def test_the_first_four_colours_stay_apart_in_colour_blindness(simulation):
    share = np.array([draw._class_colour(label) for label in range(4)])[:, ::-1] / 255
    seen = np.clip(np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4), 0, 1)
    seen = np.clip(seen @ np.array(simulation).T, 0, 1)
    encoded = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    lab = cv2.cvtColor(encoded[None].astype(np.float32), cv2.COLOR_RGB2LAB)[0]
    distances = np.linalg.norm(lab[:, None] - lab, axis=-1)[~np.eye(4, dtype=bool)]
    assert distances.min() >= 15  # CIE 1976, where 2.3 is just noticeable


@pytest.mark.parametrize(
    "box",
    [
        [0, 0, 80, 60],
        [560, 0, 640, 60],
        [0, 420, 80, 480],
        [560, 420, 640, 480],
        [300, 0, 380, 4],
        [300, 476, 380, 480],
        [0, 200, 3, 280],
        [637, 200, 640, 280],
        [0, 0, 640, 480],
        [320, 240, 320, 240],
        [640, 480, 640, 480],
        [0, 0, 0, 0],
    ],
)
def test_the_label_lies_whole_in_the_picture(box):
    frame, detections = plain(480, 640), found([box], names=["traffic light"])
    (plate,) = plates_of(frame, detections)
    assert plate.size
    left, top, right, bottom = where(plate, draw_detections(frame, detections))
    assert left >= 0 <= top
    assert right <= 640
    assert bottom <= 480


def test_a_label_stands_on_its_box_where_there_is_room():
    frame, detections = plain(480, 640), found([[200, 100, 400, 300]])
    (plate,) = plates_of(frame, detections)
    left, _, _, bottom = where(plate, draw_detections(frame, detections))
    assert abs(left - 200) <= 2  # line and edge at this size
    assert abs(bottom - 100) <= 2


def test_labels_of_boxes_at_one_place_do_not_cover_each_other():
    frame, detections = plain(480, 640), found([[200, 100, 400, 300]] * 6, [0, 1, 2, 0, 1, 2])
    picture = draw_detections(frame, detections)
    places = [where(plate, picture) for plate in plates_of(frame, detections)]  # each is whole
    assert len(set(places)) == 6


def test_a_box_without_area_is_still_marked():
    picture = draw_detections(plain(64, 64), found([[30, 40, 30, 40]]))
    assert (picture[40, 30] == draw._class_colour(0)).all()


def test_lines_and_letters_grow_with_the_picture():
    styles = [draw._Style.of(plain(*size)) for size in ((64, 64), (480, 640), (1080, 1920), (3000, 4000))]
    assert [style.line for style in styles] == [1, 2, 4, 8]
    assert [style.capital for style in styles] == [7, 9, 15, 29]


def test_a_long_name_is_shortened_and_keeps_its_score():
    name = "an uncommonly long class name"
    frame, detections = plain(64, 64), found([[5, 20, 60, 60]], names=[name])
    (plate,) = plates_of(frame, detections)
    shown = [
        kept
        for kept in range(len(name))
        if np.array_equal(
            plate[1:-1, 1:-1],
            draw._text(f"{name[:kept]}. 0.90", draw._class_colour(0), draw._BLACK, draw._Style.of(frame)),
        )
    ]
    assert len(shown) == 1
    assert shown[0] >= 2
    where(plate, draw_detections(frame, detections))


def test_a_label_that_cannot_fit_is_left_out():
    frame, detections = plain(12, 200), found([[5, 2, 60, 10]])
    (plate,) = plates_of(frame, detections)
    assert plate.size == 0
    assert (draw_detections(frame, detections) == draw._class_colour(0)).all(axis=2).any()


@pytest.mark.parametrize("name", ["naïve", "汽车", "слон", "🚗", "ش", "a\nb", "nul\0x", "tab\t", "\ud83d"])
def test_a_name_in_any_script_is_drawn_on_one_line(name):
    frame, detections = plain(480, 640), found([[200, 100, 400, 300]], names=[name])
    (plate,) = plates_of(frame, detections)
    (ascii_plate,) = plates_of(frame, found([[200, 100, 400, 300]], names=["car"]))
    assert plate.shape[0] == ascii_plate.shape[0]
    assert (contrast(plate[2:-2, 2:-2], draw._class_colour(0)) >= 4.5).sum() >= 20  # pixels of letters
    where(plate, draw_detections(frame, detections))


def test_letters_that_an_older_opencv_lacks_become_question_marks(monkeypatch):
    monkeypatch.delattr(cv2, "FontFace", raising=False)
    style = draw._Style.of(plain(480, 640))
    ink, ground = draw._BLACK, draw._WHITE
    assert np.array_equal(draw._text("é汽 0.90", ground, ink, style), draw._text("?? 0.90", ground, ink, style))


@pytest.mark.parametrize("shape", SHAPES)
def test_pictures_of_every_shape_are_drawn(shape):
    height, width = shape
    frame = plain(height, width)
    boxes = [[0, 0, width, height], [width / 2, height / 2, width / 2, height / 2], [width, 0, width, height]]
    detections = found(boxes, [0, 1, 2])
    assert draw_detections(frame, detections).shape == frame.shape
    picture = draw_corners(frame, no_heat(frame), no_heat(frame), detections)
    zoom = picture.shape[1] // width
    assert picture.shape[1] == zoom * width
    assert picture.shape[0] > zoom * height
    assert zoom * max(shape) >= 640
    assert (zoom - 1) * max(shape) < 640


def test_heat_of_top_left_corners_is_warm_and_of_bottom_right_corners_cool():
    frame = plain(720, 1280)
    tl_heat, br_heat = no_heat(frame), no_heat(frame)
    tl_heat[100:140, 100:140], br_heat[400:440, 800:840] = 0.8, 0.8
    picture = draw_corners(frame, tl_heat, br_heat, found([])).astype(int)
    blue, _, red = picture[120, 120]
    assert red - blue >= 100
    blue, _, red = picture[420, 820]
    assert blue - red >= 100
    blue, _, red = picture[600, 300]
    assert abs(blue - red) <= 2


def test_more_heat_glows_more_and_none_or_nan_does_not():
    frame = plain(640, 640, 255)
    tl_heat = no_heat(frame)
    tl_heat[:, :] = np.repeat(np.float32([0, 0.25, 0.5, 1]), 160)
    tl_heat[500:] = np.nan
    picture = draw_corners(frame, tl_heat, no_heat(frame), found([])).astype(int)
    warmth = (picture[..., 2] - picture[..., 0])[300, [80, 240, 400, 560]]
    assert warmth[0] == 0
    assert (np.diff(warmth) >= 20).all()
    assert (picture[505:635, ..., 2] == picture[505:635, ..., 0]).all()


def test_the_frame_is_muted_beneath():
    frame = np.zeros((640, 640, 3), np.uint8)
    frame[:] = (40, 60, 250)
    red = draw_corners(frame, no_heat(frame), no_heat(frame), found([]))[300, 300].astype(int)
    assert np.ptp(red) < 0.25 * np.ptp(frame[0, 0].astype(int))
    assert red.max() < 128


def test_brackets_open_towards_each_other_and_a_diagonal_joins_them():
    frame = plain(640, 640, 0)
    detections = found([[100, 200, 500, 440]], names=["x"])
    picture = draw_corners(frame, no_heat(frame), no_heat(frame), detections)
    warm = (picture[:640] == draw._TOP_LEFT).all(axis=2)
    cool = (picture[:640] == draw._BOTTOM_RIGHT).all(axis=2)
    reach = draw._Style.of(frame).bracket
    assert warm[200, 100 + reach // 2]
    assert warm[200 + reach // 2, 100]
    assert not warm[:195].any()
    assert not warm[:, :95].any()
    assert cool[439, 499 - reach // 2]
    assert cool[439 - reach // 2, 499]
    assert not cool[445:].any()
    assert not cool[:, 505:].any()
    for part in (0.2, 0.8):  # clear of brackets and of the label amid
        x, y = round(100 + part * 399), round(200 + part * 239)
        assert contrast(picture[y - 2 : y + 3, x], (0, 0, 0)).max() >= 7


def test_corner_labels_keep_clear_of_the_corners():
    frame = plain(720, 1280)
    detections = found([[300, 300, 330, 330], [600, 300, 900, 500]], [0, 1])
    picture = draw_corners(frame, no_heat(frame), no_heat(frame), detections)
    for plate in plates_of(frame, detections):
        left, top, right, bottom = where(plate, picture[:720])
        for x, y in detections.boxes.reshape(-1, 2):
            assert not (left - 5 < x < right + 5 and top - 5 < y < bottom + 5)


def test_the_size_of_a_corner_picture_depends_on_the_frame_alone():
    frame = np.random.default_rng(4).integers(0, 256, (255, 255, 3), dtype=np.uint8)
    sizes = {
        draw_corners(frame, no_heat(frame), no_heat(frame), found(boxes)).shape for boxes in ([], [[1, 2, 30, 40]] * 5)
    }
    assert len(sizes) == 1


def test_the_legend_reads_on_any_frame():
    strips = []
    for level in (0, 255):
        frame = plain(640, 640, level)
        strips.append(draw_corners(frame, no_heat(frame), no_heat(frame), found([]))[640:])
    assert np.array_equal(*strips)
    assert (contrast(strips[0], draw._LEGEND_GROUND) >= 7).sum() >= 500  # pixels of words and marks


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
    ],
)
def test_a_frame_of_another_kind_is_refused(frame):
    with pytest.raises(FrameError, match=r"a frame is uint8 \[H, W, 3\]"):
        draw_detections(frame, found([]))
    with pytest.raises(FrameError, match=r"a frame is uint8 \[H, W, 3\]"):
        draw_corners(frame, no_heat(frame), no_heat(frame), found([]))


def test_heat_of_another_size_is_refused():
    frame = plain(32, 48)
    with pytest.raises(FrameError, match=r"br_heat: expected size \(32, 48\)"):
        draw_corners(frame, no_heat(frame), np.zeros((8, 12), np.float32), found([]))
