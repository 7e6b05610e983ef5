"""Videos with known contents, for tests."""

import av
import numpy as np

from helpers.colour_finder import draw
from retinanet.predict.video import CLOCK


def make_video(path, images, rate=10, times=None, codec="libx264", options=None, container=None):
    """A video of these images (H, W, 3) RGB, at these times in seconds."""
    with av.open(str(path), "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=rate)
        if codec == "libx264":
            stream.options = {"crf": "10", "preset": "ultrafast"} | (options or {})
        if times is not None:
            stream.codec_context.time_base = CLOCK
        for number, image in enumerate(images):
            height, width = image.shape[:2]
            if number == 0:
                stream.height, stream.width = height, width
                stream.pix_fmt = "yuv420p" if height % 2 == width % 2 == 0 else "yuv444p"
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(times[number] / CLOCK), CLOCK
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def moving(count=30, height=96, width=128):
    """Two red squares that move past each other and vanish for a while, and a green one that does not move."""
    for i in range(count):
        hidden = 14 <= i < 18
        red = [] if hidden else [(0, (4 + 3 * i, 8, 24 + 3 * i, 28)), (0, (100 - 3 * i, 40, 120 - 3 * i, 60))]
        yield draw(
            (height, width), [*((c, (max(a, 0), b, max(d, 1), e)) for c, (a, b, d, e) in red), (1, (50, 70, 70, 90))]
        )
