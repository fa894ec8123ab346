"""Where the results of a stream go: JSON lines and functions here, annotated video in ``writer``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Protocol, TextIO

from cornernet_runtime.errors import OutputError
from cornernet_runtime.files import make_folder
from cornernet_runtime.json_lines import json_objects

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cornernet_runtime.video.stream import FrameResult


class Sink(Protocol):
    """Takes results in order, and ends in one of two ways, the first of which counts."""

    def write(self, result: FrameResult) -> None:
        """Take a result.

        Raises:
            CornerNetError: It cannot be taken.
        """

    def close(self, *, whole: bool = True) -> None:
        """End well.

        Args:
            whole: Whether the source came to its end, rather than being left before.

        Raises:
            CornerNetError: What was written cannot be finished.
        """

    def abort(self) -> None:
        """End after an error, and keep what was written under its temporary name."""


class JsonLines:
    """Writes one JSON object a line and frame, each as soon as it is there.

    A file is written under the name that ``part_of`` gives, and renamed when it is closed.

    Args:
        path: Of the file, whose folder is made; ``-`` is standard output.

    Raises:
        OutputError: It cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = None if str(path) == "-" else part_of(path)
        if self._part is not None:
            make_folder(path.parent)
        try:
            self._stream: TextIO = (
                sys.stdout
                if self._part is None
                # A name that is no UTF-8 has lone surrogates, which JSON writes as escapes.
                else self._part.open("w", encoding="utf-8", errors="backslashreplace")
            )
        except OSError as error:
            raise self._problem(error) from error

    def write(self, result: FrameResult) -> None:
        """Write a line.

        Raises:
            OutputError: The disk is full, for example.
        """
        height, width = result.image.shape[:2]
        content = {
            "source": result.frame.source,
            "frame": result.index,
            "seconds": round(result.seconds, 6),
            "width": width,
            "height": height,
            "detections": json_objects(result.detections),
        }
        try:
            self._stream.write(json.dumps(content, ensure_ascii=self._part is None) + "\n")
            self._stream.flush()
        except BrokenPipeError:
            raise  # whoever read our output has stopped
        except OSError as error:
            raise self._problem(error) from error

    def close(self, *, whole: bool = True) -> None:  # noqa: ARG002 - lines are whole in any case
        """Give the file its name.

        Raises:
            OutputError: It cannot be renamed.
        """
        try:
            self.abort()
            if self._part is not None:
                self._part.replace(self._path)
                self._part = None
        except OSError as error:
            raise self._problem(error) from error

    def abort(self) -> None:
        """Close the file under its temporary name."""
        if self._stream is not sys.stdout:
            self._stream.close()

    def _problem(self, error: OSError) -> OutputError:
        return OutputError(f"cannot write {self._path}: {error.strerror or error}")


class Callback:
    """Calls a function with each result."""

    def __init__(self, function: Callable[[FrameResult], object]) -> None:
        self._function = function

    def write(self, result: FrameResult) -> None:
        """Call the function, whose errors go on."""
        self._function(result)

    def close(self, *, whole: bool = True) -> None:
        """Nothing is held."""

    def abort(self) -> None:
        """Nothing is held."""


def part_of(path: Path) -> Path:
    """Return the temporary name of a file that is being written: ``clip.part.mp4`` for ``clip.mp4``."""
    return path.with_name(f"{path.stem}.part{path.suffix}")
