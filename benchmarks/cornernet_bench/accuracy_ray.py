"""Average precision from detections that a Ray cluster computed; the judging is done here, by the same code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cornernet_bench.accuracy import Accuracy, Seen, judge_detections
from cornernet_bench.coco import category_ids_of, read_coco
from cornernet_bench.models import CHECKPOINTS
from cornernet_runtime.cluster.model import identify
from cornernet_runtime.cluster.request import ClusterRequest
from cornernet_runtime.cluster.run import detect_on_cluster
from cornernet_runtime.errors import BackendError, FrameError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from cornernet_runtime.cluster.work import Progress
    from cornernet_runtime.spec import ModelSpec

PART_SIZE = 64


def check_models(models: Sequence[str]) -> None:
    """Raise BackendError for a checkpoint."""
    for path in models:
        if Path(path).suffix in CHECKPOINTS:
            raise BackendError(f"{path}: --ray runs bundles and .onnx files; export it first: cornernet-export {path}")


def evaluate_on_ray(
    model: str, arguments: argparse.Namespace, on_progress: Progress
) -> tuple[tuple[str, ModelSpec, bool, tuple[float, ...]], Accuracy]:
    """Detect on every picture, on the cluster, and let pycocotools judge here.

    The rows come back through Ray, so that no folder has to be shared but the model's and the pictures'.

    Args:
        model: Bundle folder or ``.onnx`` file.
        arguments: Of ``cornernet-bench accuracy``.
        on_progress: As for ``detect_on_cluster``.

    Returns:
        What ran the network, how the model is used, whether mirrored too, and the scales; and the accuracy, which is
        that of ``accuracy.evaluate`` but for the times.

    Raises:
        FrameError: As ``accuracy.evaluate``.
        CornerNetError: As ``detect_on_cluster``.
    """
    data = read_coco(arguments.annotations, arguments.images)
    class_names = identify(model).spec.class_names
    ids = category_ids_of(data, class_names, arguments.annotations, arguments.images)
    listed = data.truth.getImgIds()
    summary = detect_on_cluster(
        ClusterRequest(
            model=model,
            sources=tuple(str(data.paths[image_id]) for image_id in listed),
            output=None,
            address=arguments.ray,
            workers=arguments.workers,
            worker_cpus=arguments.worker_cpus or 1,
            worker_gpus=arguments.worker_gpus or 0.0,
            backend=arguments.backend,
            score=0.0,
            flip=arguments.flip,
            scales=arguments.scales,
            part_size=PART_SIZE,
        ),
        on_progress,
    )
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
    view = summary.parts[0].backend, summary.spec, arguments.flip, tuple(summary.scales)
    return view, judge_detections(data, ids, class_names, seen)
