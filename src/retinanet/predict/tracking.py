"""Gives each object in a video a number that it keeps from frame to frame: ByteTrack, of the package trackers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from retinanet.common.errors import RequestError

if TYPE_CHECKING:
    from retinanet.inference.detections import Detections

LOST_BUFFER = 30  # thirtieths of a second that an object may be out of sight and keep its number
FAINT = 0.5  # times the threshold: detections above that still show where a known object moved


def require_trackers() -> Any:
    """The package trackers.

    Raises:
        RequestError: it is not installed.
    """
    try:
        import trackers
    except ImportError:
        raise RequestError("--track needs the package trackers: pip install 'retinanet[video]'") from None
    return trackers


class Tracks:
    """Gives the objects of one video their numbers, frame by frame.

    An object gets its number in the second frame that shows it. Classes do not matter for tracking, so that an object
    keeps its number where its class is uncertain.

    Args:
        rate: frames a second.
        threshold: score above which detections are returned.
        least: the lowest threshold that the detector can have.

    Attributes:
        faint: the threshold for the detector. As in ByteTrack's paper, faint detections keep a track alive.
    """

    def __init__(self, rate: float, threshold: float, least: float = 0.0) -> None:
        self.threshold, self.faint = threshold, max(threshold * FAINT, least)
        # Every returned detection gets a number: with the package's default only scores above 0.7 would.
        self._tracker = require_trackers().ByteTrackTracker(
            lost_track_buffer=LOST_BUFFER,
            frame_rate=rate,
            track_activation_threshold=threshold,
            high_conf_det_threshold=threshold,
        )

    def update(self, detections: Detections, time: float) -> tuple[Detections, list[int | None]]:
        """Track the objects into the next frame.

        Args:
            detections: those of the frame with scores above :attr:`faint`.
            time: of the frame, in seconds; it always increases.

        Returns:
            The detections above the threshold, and the number of each; None where it has none yet.
        """
        untracked = detections.to_supervision()
        untracked.data["index"] = np.arange(len(detections))
        tracked = self._tracker.update(untracked, timestamp=time)
        numbers = np.full(len(detections), -1)
        if len(tracked):
            numbers[tracked.data["index"]] = tracked.tracker_id
        above = detections.scores > self.threshold
        shown = [int(number) if number >= 0 else None for number in numbers[above.numpy()]]
        return detections.above(self.threshold), shown
