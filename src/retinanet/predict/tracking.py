"""Numbers for objects that stay the same from frame to frame: ByteTrack, of the package trackers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from retinanet.common.errors import RequestError

if TYPE_CHECKING:
    from retinanet.inference.detections import Detections

REMEMBERED = 30  # thirtieths of a second that an object may be out of sight and keep its number
FAINT = 0.5  # of the threshold: detections above it still tell where a known object went


def require_trackers() -> Any:
    """
    Raises:
        RequestError: the package is not installed.
    """
    try:
        import trackers
    except ImportError:
        raise RequestError("--track needs the package trackers: pip install 'retinanet[video]'") from None
    return trackers


class Tracks:
    """Gives the objects of one video their numbers, frame by frame.

    An object has a number from the second frame on in which it is seen; classes are not told apart, so that an object
    keeps its number where its class is doubtful.

    Args:
        rate: frames a second.
        threshold: score above which detections are wanted.
        least: the lowest threshold that the detector takes.

    Attributes:
        faint: the threshold for the detector: as in ByteTrack's paper, faint detections keep a track alive.
    """

    def __init__(self, rate: float, threshold: float, least: float = 0.0) -> None:
        self.threshold, self.faint = threshold, max(threshold * FAINT, least)
        # Whatever is worth showing is worth a number: by default only scores above 0.7 would get one.
        self._tracker = require_trackers().ByteTrackTracker(
            lost_track_buffer=REMEMBERED,
            frame_rate=rate,
            track_activation_threshold=threshold,
            high_conf_det_threshold=threshold,
        )

    def update(self, found: Detections, time: float) -> tuple[Detections, list[int | None]]:
        """
        Args:
            found: of one frame, with scores above :attr:`faint`. time: of the frame, in seconds; it always grows.

        Returns:
            The detections above the threshold, and the number of each; None where it has none yet.
        """
        given = found.to_supervision()
        given.data["place"] = np.arange(len(found))
        tracked = self._tracker.update(given, timestamp=time)
        numbers = np.full(len(found), -1)
        if len(tracked):
            numbers[tracked.data["place"]] = tracked.tracker_id
        wanted = found.scores > self.threshold
        shown = [int(number) if number >= 0 else None for number in numbers[wanted.numpy()]]
        return found.above(self.threshold), shown
