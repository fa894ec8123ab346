"""A window that shows what is found while frames flow, by OpenCV."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Self

import cv2

from cornernet_runtime.draw import draw_detections
from cornernet_runtime.errors import OutputError
from cornernet_runtime.machine import ProbeError, output_of

if TYPE_CHECKING:
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

    from cornernet_runtime.video.stream import FrameResult

LARGEST = (1280, 720)  # columns and rows at first; the user may pull it larger
ENDING_KEYS = frozenset((ord("q"), ord("Q"), 27))  # 27 is Esc
TRIAL = "import cv2; cv2.namedWindow('trial'); cv2.waitKey(1)"


class Window:
    """Shows frames with their detections, in the thread that made it.

    Keys and the closing of the window are seen when the next frame is shown.

    Args:
        title: Stands before the name of the source.

    Raises:
        OutputError: The installed OpenCV has no window system, or there is no screen.
    """

    def __init__(self, title: str = "cornernet-detect") -> None:
        _check_window_system()
        self._title, self._name = title, f"{title} {id(self)}"
        self._source: str | None = None  # what the title tells

    def show(self, result: FrameResult) -> bool:
        """Show a frame; return whether to go on, which q, Esc and closing the window deny.

        Raises:
            FrameError: The frame lies on a GPU.
        """
        picture = draw_detections(result.image, result.detections)
        if self._source is None:
            self._open(picture)
        elif not self._is_open():  # OpenCV would open another
            return False
        if self._source != result.frame.source:
            self._source = result.frame.source
            readable = self._source.encode("utf-8", "replace").decode()  # a file's name may be no UTF-8
            cv2.setWindowTitle(self._name, f"{self._title}: {readable}")
        cv2.imshow(self._name, picture)
        key = cv2.waitKey(1) & 0xFF
        return key not in ENDING_KEYS and self._is_open()

    def close(self) -> None:
        """Take the window away, if it is still there."""
        if self._source is not None:
            self._source = None
            with contextlib.suppress(cv2.error):  # the user closed it
                cv2.destroyWindow(self._name)
            cv2.waitKey(1)  # without which it would stay until the end of the program

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _is_open(self) -> bool:
        try:
            return bool(cv2.getWindowProperty(self._name, cv2.WND_PROP_VISIBLE) >= 1)
        except cv2.error:  # Qt, when its last window was closed
            return False

    def _open(self, picture: NDArray[np.uint8]) -> None:
        cv2.namedWindow(self._name, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        height, width = picture.shape[:2]
        scale = min(1.0, LARGEST[0] / width, LARGEST[1] / height)
        cv2.resizeWindow(self._name, max(1, round(width * scale)), max(1, round(height * scale)))


def _check_window_system() -> None:
    if not cv2.currentUIFramework():
        raise OutputError(
            "a window needs an OpenCV with a window system, and opencv-python-headless has none; pip uninstall -y "
            "opencv-python-headless opencv-python && pip install opencv-python (not both: each overwrites the other)"
        )
    elsewhere = "run it where there is a screen, or have a video written (--output DIR)"
    screen = os.environ.get("WAYLAND_DISPLAY") or os.environ.get("DISPLAY")
    if sys.platform == "linux" and not screen:
        raise OutputError(f"a window needs a screen, and neither DISPLAY nor WAYLAND_DISPLAY names one; {elsewhere}")
    try:
        output_of(sys.executable, "-c", TRIAL)  # for Qt ends the program where it finds no screen
    except ProbeError as error:
        raise OutputError(
            f"a window cannot be opened on the screen {screen or 'of this machine'}: {error}; {elsewhere}"
        ) from error
