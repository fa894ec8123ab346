"""Detect in a video that OpenCV reads, and write it annotated: python opencv_loop.py MODEL VIDEO OUTPUT."""

import sys

import cv2

from cornernet_runtime import Detector
from cornernet_runtime.draw import draw_detections

model, video, output = sys.argv[1:]
capture = cv2.VideoCapture(video)  # the number 0 would be a camera
size = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
writer = cv2.VideoWriter(output, cv2.VideoWriter.fourcc(*"mp4v"), capture.get(cv2.CAP_PROP_FPS), size)
with Detector.open(model) as detector:
    while True:
        there, frame = capture.read()  # uint8 [H, W, 3], BGR, as the detector takes it
        if not there:
            break
        found = detector(frame).above(0.5)
        writer.write(draw_detections(frame, found))
        print(", ".join(f"{name} {score:.2f}" for _, score, name in found))
writer.release()
capture.release()
