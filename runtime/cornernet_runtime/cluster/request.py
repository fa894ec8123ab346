"""What a run on a cluster is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cornernet_runtime.cluster.tables import Columns

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class ClusterRequest:
    """What to detect in, and on what.

    Attributes:
        model: Bundle folder or ``.onnx`` file; it, the sources and the output are at the same paths on every machine.
        sources: Pictures, videos, Parquet files with pictures, folders and globs.
        output: Folder for the rows; None keeps them in memory, as ``ClusterSummary.rows``.
        address: As for ``connect.connected``.
        workers: Detectors at work at the same time; None is as many as the cluster has a place for.
        worker_cpus: Cores for each, which are the threads of a network on the CPU.
        worker_gpus: GPUs for each; 0.5 lets two share one.
        backend: What runs the network; None is the best on the worker's machine.
        score: Least score of what is kept.
        flip: Whether to look at each picture's mirror image too.
        scales: At which to look at each picture.
        every: Of so many frames of a video one is looked at.
        part_size: Pictures a part, and looked-at frames a part at least; None decides by how many there are.
        columns: Of Parquet files.
    """

    model: str
    sources: tuple[str, ...]
    output: Path | None
    address: str
    workers: int | None = None
    worker_cpus: int = 1
    worker_gpus: float = 0.0
    backend: str | None = None
    score: float = 0.3
    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    every: int = 1
    part_size: int | None = None
    columns: Columns = field(default_factory=Columns)
