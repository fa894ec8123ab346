"""Average precision from detections that a Ray cluster computed; the judging is done here, by the same code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cornernet_bench.accuracy.evaluate import Accuracy, Seen, judge_detections
from cornernet_bench.coco.dataset import category_ids_of, read_coco
from cornernet_bench.model_names import CHECKPOINTS
from cornernet_runtime.cluster.model import identify
from cornernet_runtime.cluster.run import detect_on_cluster
from cornernet_runtime.errors import BackendError, FrameError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cornernet_runtime.cluster.pool import Progress
    from cornernet_runtime.cluster.request import ClusterRequest
    from cornernet_runtime.cluster.run import ClusterSummary

PART_SIZE = 64


def check_models(models: Sequence[str]) -> None:
    """Raise BackendError for a checkpoint."""
    for path in models:
        if Path(path).suffix in CHECKPOINTS:
            raise BackendError(f"{path}: --ray runs bundles and .onnx files; export it first: cornernet-export {path}")


def evaluate_on_ray(
    request: ClusterRequest, annotations: Path, images: Path, on_progress: Progress
) -> tuple[ClusterSummary, Accuracy]:
    """Detect on every picture, on the cluster, and let pycocotools judge here.

    The rows come back through Ray, so that no folder has to be shared but the model's and the pictures'.

    Args:
        request: The model and how it is run; the sources are put in here.
        annotations: As for ``accuracy.evaluate.evaluate``.
        images: As for ``accuracy.evaluate.evaluate``.
        on_progress: As for ``detect_on_cluster``.

    Returns:
        What the run came to; and the accuracy, which is that of ``accuracy.evaluate.evaluate`` but for the times.

    Raises:
        FrameError: As ``accuracy.evaluate.evaluate``.
        CornerNetError: As ``detect_on_cluster``.
    """
    data = read_coco(annotations, images)
    class_names = identify(request.model).spec.class_names
    ids = category_ids_of(data, class_names, annotations, images)
    listed = data.truth.getImgIds()
    sources = tuple(str(data.paths[image_id]) for image_id in listed)
    summary = detect_on_cluster(replace(request, sources=sources), on_progress)
    found = []
    for row in summary.rows:
        if row.detections is None:
            raise FrameError(str(row.error))
        found.append(row.detections)
    seen = Seen(
        listed,
        found,
        sum(part.detecting_s for part in summary.parts),
        sum(part.scaled_down for part in summary.parts),
    )
    return summary, judge_detections(data, ids, class_names, seen)
