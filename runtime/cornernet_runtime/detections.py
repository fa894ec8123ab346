"""What a picture becomes: boxes, scores and labels in its own pixels."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from cornernet_runtime.errors import CornerNetError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import supervision
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Candidates:
    """Pairs of corners before non-maximum suppression, best first.

    Attributes:
        boxes: float32 [M, 4], x1 y1 x2 y2. In cells of the corner maps as decode gives them.
        scores: float32 [M], mean of the two corner scores, descending within a view.
        tl_scores: float32 [M], sigmoid of the top-left heat.
        br_scores: float32 [M], sigmoid of the bottom-right heat.
        labels: int64 [M], index of the class.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    tl_scores: NDArray[np.float32]
    br_scores: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, chosen: NDArray[np.bool_]) -> Candidates:
        """Return those that a mask [M] marks."""
        return Candidates(*(getattr(self, field.name)[chosen] for field in fields(Candidates)))

    @staticmethod
    def joined(parts: Sequence[Candidates]) -> Candidates:
        """Return those of several views of one picture, one view after the other."""
        columns = ([getattr(part, field.name) for part in parts] for field in fields(Candidates))
        return Candidates(*(np.concatenate(column) for column in columns))


@dataclass(frozen=True, slots=True)
class Detections:
    """Objects found in one picture, best first.

    Attributes:
        boxes: float32 [N, 4], x1 y1 x2 y2 in pixels of the frame, from the left and top edge, within the frame.
        scores: float32 [N], 0 to 1, descending.
        labels: int64 [N], index into ``class_names``.
        class_names: Names of all classes of the model.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[tuple[NDArray[np.float32], float, str]]:
        """Yield box, score and class name of each object."""
        for box, score, label in zip(self.boxes, self.scores, self.labels, strict=True):
            yield box, float(score), self.class_names[label]

    def above(self, score: float) -> Detections:
        """Return the detections of at least this score."""
        count = int(np.count_nonzero(self.scores >= score))
        return Detections(self.boxes[:count], self.scores[:count], self.labels[:count], self.class_names)

    def to_coco(self, image_id: int, category_ids: Sequence[int]) -> list[dict[str, Any]]:
        """Return rows of a COCO result file: bbox as x, y, width, height in pixels.

        Args:
            image_id: Of this picture in the annotation file.
            category_ids: Id in the annotation file of each class of the model.
        """
        boxes = self.boxes.astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        return [
            {"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": score}
            for box, score, label in zip(boxes.tolist(), self.scores.tolist(), self.labels, strict=True)
        ]

    def to_supervision(self) -> supervision.Detections:
        """Return the same for the tools of supervision: xyxy, confidence and class_id, with data["class_name"].

        Raises:
            CornerNetError: The package supervision is not installed.
        """
        try:
            import supervision  # noqa: PLC0415 - of the examples, not of the runtime
        except ImportError as error:
            raise CornerNetError(
                'to_supervision needs the package supervision, which is not installed; pip install "supervision>=0.30"'
            ) from error
        names = np.array([self.class_names[label] for label in self.labels], dtype=str)
        return supervision.Detections(
            xyxy=self.boxes, confidence=self.scores, class_id=self.labels, data={"class_name": names}
        )
