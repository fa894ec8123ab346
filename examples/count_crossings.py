"""Count the objects that cross the middle of the picture: python count_crossings.py MODEL VIDEO.

supervision has the line, trackers the tracker. trackers asks for opencv-python, which overwrites opencv-python-headless
and is not needed: pip install "supervision>=0.30" && pip install --no-deps trackers
"""

import sys

import supervision as sv
from trackers import ByteTrackTracker

from cornernet_runtime import Detector

line = None
tracker = ByteTrackTracker(frame_rate=25, track_activation_threshold=0.5, high_conf_det_threshold=0.5)
with Detector.open(sys.argv[1]) as detector, detector.stream(sys.argv[2]) as stream:
    for result in stream:
        middle, height = result.image.shape[1] // 2, result.image.shape[0]
        line = line or sv.LineZone(sv.Point(middle, 0), sv.Point(middle, height), [sv.Position.CENTER])
        tracked = tracker.update(result.detections.above(0.3).to_supervision())
        for way, crossed in zip(("right", "left"), line.trigger(tracked), strict=True):
            for name in tracked.data["class_name"][crossed]:
                print(f"{result.seconds:.2f} s: {name} to the {way}")
