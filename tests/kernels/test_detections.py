"""From the shipped model's maps to detections: the kernels of decode and soft-NMS against the runtime on the CPU."""

import numpy as np
import pytest
from host import decode_host, host_cuda, kernel_host
from places import SHIPPED

from cornernet_export.torch_backend.cpu import open_checkpoint
from cornernet_export.verification.matching import box_iou
from cornernet_runtime.detections import Candidates
from cornernet_runtime.kernels import soft_nms as kernels
from cornernet_runtime.processing.geometry import place
from cornernet_runtime.processing.maps import OUTPUT_NAMES, CornerMaps
from cornernet_train.shapes import make_scene

pytestmark = pytest.mark.skipif(host_cuda.why_not() is not None, reason=str(host_cuda.why_not()))

UNSEEN_SEED = 777
SCENES = 10


@pytest.fixture(scope="module")
def program():
    return kernel_host.build_kernels(["decode", "soft_nms"], ["-O2"])


@pytest.fixture(scope="module")
def detector():
    with open_checkpoint(SHIPPED, flip=True) as opened:
        yield opened


def detect(program, detector, frame):
    """Return what the kernels find in a batch of a frame's views (boxes, scores, labels), and what the runtime does."""
    spec = detector.spec
    views = place(frame.shape[:2], spec, detector.scales, flip=True)
    maps = detector._run([frame] * len(views), views)
    copies = CornerMaps(*(getattr(maps, name).copy() for name in OUTPUT_NAMES))
    block, found = decode_host.decode_block(program, copies, spec.decode, views, spec.stride)
    room = kernels.workspace_bytes(found, 1, len(spec.class_names), spec.nms)
    workspace = np.full(room, decode_host.POISON, np.uint8)
    output = np.empty(kernels.DetectionMemory(16, 1, spec.nms.max_detections).nbytes, np.uint8)
    detections = kernels.DetectionMemory(output.ctypes.data, 1, spec.nms.max_detections)
    launches = kernels.soft_nms(found, len(spec.class_names), spec.nms, detections, workspace.ctypes.data, room)
    kernel_host.run(program, launches, [block, workspace, output])
    want = detector._suppress(
        Candidates.joined([detector._candidates(copies[i], view) for i, view in enumerate(views)])
    )
    return detections.read(output, 0), want.above(0.1)


@pytest.mark.slow
def test_every_detection_of_unseen_scenes_is_found_where_it_is(program, detector):
    total = matched = 0
    for index in range(SCENES):
        frame = make_scene(UNSEEN_SEED, index).image
        (boxes, scores, labels), want = detect(program, detector, frame)
        same = box_iou(want.boxes, boxes) >= 0.95
        same &= want.labels[:, None] == labels
        # Scores of both sides are sums and products of a few exponentials, each within 2 ulp.
        same &= np.abs(want.scores[:, None] - scores) <= 1e-5 * want.scores[:, None]
        total += len(want)
        matched += int(np.count_nonzero(same.any(axis=1)))
    assert total >= 5 * SCENES
    assert matched == total  # the bar is 99.5 %
