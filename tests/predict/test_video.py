"""Videos, cameras and streams in; annotated videos and JSON lines out. PyAV makes the videos."""

import functools
import http.server
import io
import itertools
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from helpers.colour_finder import ColourFinder, draw
from helpers.tiny_run import tiny
from retinanet.cli import main
from retinanet.common.arguments import PredictOptions
from retinanet.common.errors import RequestError, WorkError
from retinanet.inference.detector import Detector
from retinanet.model import RetinaNet
from retinanet.predict import frames as frames_module
from retinanet.predict.files import predict_files
from retinanet.predict.frames import Frames, VideoError
from retinanet.predict.inputs import Video, find_sources
from retinanet.predict.outputs import OutputOptions
from retinanet.predict.predictor import Callbacks, Predictor, Tiling
from retinanet.predict.video import CLOCK, VideoOptions, predict_video

av = pytest.importorskip("av", reason="videos need the extra [video]")

from helpers.moving_images import make_video, moving  # noqa: E402

UNDRAWN = OutputOptions(draw=False)
TRACKED = VideoOptions(track=True)


def decoded(path):
    with av.open(str(path)) as file:
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in file.decode(video=0)]


def lines_of(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def finder():
    return ColourFinder(smallest=60)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_video(tmp_path_factory.mktemp("clip") / "clip.mp4", moving())


# ---------------------------------------------------------------------------------------------------------- results


def test_an_annotated_video_and_a_line_for_each_frame(clip, tmp_path):
    seen = []
    made = predict_files(finder(), [clip], tmp_path / "found", callbacks=Callbacks(on_frames=seen.append))
    (video,) = made.videos
    assert (video.frames, video.problem, video.dropped, video.stopped) == (30, None, 0, False)
    assert made.files == [tmp_path / "found" / "clip.mp4", tmp_path / "found" / "clip.jsonl"]
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == ["clip.jsonl", "clip.mp4"]
    lines = lines_of(made.files[1])
    assert [line["frame"] for line in lines] == list(range(30))
    assert [line["time"] for line in lines] == [pytest.approx(i / 10) for i in range(30)]
    for i, line in enumerate(lines):
        green = next(d for d in line["detections"] if d["name"] == "green")
        assert set(green) == {"name", "label", "score", "box"}
        assert green["label"] == 1
        np.testing.assert_allclose(green["box"], [50, 70, 70, 90], atol=1)
        red = [d["box"] for d in line["detections"] if d["name"] == "red"]
        assert len(red) == (0 if 14 <= i < 18 else 2)
    assert video.detections == made.detections == {"green": 30, "red": 52}
    images = decoded(made.files[0])
    assert [time for time, _ in images] == [pytest.approx(i / 10) for i in range(30)]
    original = decoded(clip)[0][1]
    assert images[0][1].shape == original.shape
    assert np.abs(images[0][1].astype(int) - original).mean() > 2, "boxes are drawn"
    assert [(pace.frames, pace.total) for pace in seen] == [(8, 30), (16, 30), (24, 30), (30, 30), (30, 30)]
    assert seen[0].seconds_left > 0


def test_frames_have_the_detections_of_the_same_images(clip, tmp_path):
    torch.manual_seed(0)
    model = RetinaNet(tiny().model, 2, load_weights=False)
    nn.init.normal_(model.class_subnet.output.weight, std=0.3)
    nn.init.zeros_(model.class_subnet.output.bias)
    detector = Detector(model, ("red", "green"))
    options = {"threshold": 0.5, "max_detections": 5}
    made = predict_files(detector, [clip], tmp_path / "found", batch_size=4, outputs=UNDRAWN, **options)
    assert [path.name for path in made.files] == ["clip.jsonl"]
    lines = lines_of(made.files[0])
    expected = detector.predict([image for _, image in decoded(clip)], **options)
    assert sum(map(len, expected)) > 50
    for line, found in zip(lines, expected, strict=True):
        np.testing.assert_allclose([d["box"] for d in line["detections"]], found.boxes.numpy(), atol=0.02)
        np.testing.assert_allclose([d["score"] for d in line["detections"]], found.scores.numpy(), atol=1e-4)
        assert [d["name"] for d in line["detections"]] == found.names


def test_every_third_frame(clip, tmp_path):
    made = predict_files(finder(), [clip], tmp_path / "found", videos=VideoOptions(stride=3))
    lines = lines_of(made.files[1])
    assert [line["frame"] for line in lines] == list(range(0, 30, 3))
    assert [line["time"] for line in lines] == [pytest.approx(i / 10) for i in range(0, 30, 3)]
    assert [time for time, _ in decoded(made.files[0])] == [pytest.approx(i / 10) for i in range(0, 30, 3)]


def test_slices_of_frames(clip, tmp_path):
    plain = predict_files(finder(), [clip], tmp_path / "a", outputs=UNDRAWN)
    sliced = predict_files(finder(), [clip], tmp_path / "b", outputs=UNDRAWN, tiling=Tiling(64, overlap=0.5))
    for line, other in zip(lines_of(plain.files[0]), lines_of(sliced.files[0]), strict=True):
        assert sorted(d["box"] for d in line["detections"]) == sorted(d["box"] for d in other["detections"])


def test_images_and_videos_of_a_folder(clip, tmp_path):
    folder = tmp_path / "mixed"
    (folder / "inner").mkdir(parents=True)
    for name in ("clip.mp4", "clip.MKV", "inner/clip.mp4"):
        make_video(folder / name, list(moving(3)))
    Image.fromarray(draw((50, 60), [(2, (10, 10, 30, 30))])).save(folder / "clip.png")
    seen = []
    callbacks = Callbacks(on_images=lambda *counts: seen.append(counts))
    made = predict_files(finder(), [folder], tmp_path / "found", callbacks=callbacks)
    names = {str(path.relative_to(tmp_path / "found")) for path in (tmp_path / "found").rglob("*") if path.is_file()}
    assert names == {
        "clip.png", "detections.json", "clip.mp4", "clip.jsonl", "clip-2.mp4", "clip-2.jsonl", "inner/clip.mp4",
        "inner/clip.jsonl",
    }  # fmt: skip
    assert seen == [(1, 1)]
    assert made.images == 1
    assert made.detections == {"blue": 1, "red": 18, "green": 9}


# ------------------------------------------------------------------------------------------------- kinds of videos


def test_variable_frame_rate(tmp_path):
    times = [0, 0.1, 0.15, 0.9, 1.0, 2.5]
    clip = make_video(tmp_path / "clip.mkv", list(moving(6)), times=times)
    made = predict_files(finder(), [clip], tmp_path / "found")
    assert [line["time"] for line in lines_of(made.files[1])] == pytest.approx(times, abs=1e-3)
    assert [time for time, _ in decoded(made.files[0])] == pytest.approx(times, abs=1e-3)


def test_odd_sizes(tmp_path):
    clip = make_video(tmp_path / "clip.mp4", list(moving(4, 97, 131)))
    made = predict_files(finder(), [clip], tmp_path / "found")
    images = decoded(made.files[0])
    assert len(images) == 4
    assert images[0][1].shape == (98, 132, 3), "one row and one column more"
    assert lines_of(made.files[1])[0]["detections"][0]["box"] == pytest.approx(
        lines_of(made.files[1])[3]["detections"][0]["box"], abs=10
    )


def turned(path, degrees):
    """The same file with a display matrix in its head: shown turned against the clock."""
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40
    cos, sin = {90: (0, -1), 180: (-1, 0), 270: (0, 1)}[degrees]
    values = (cos, sin, 0, -sin, cos, 0, 0, 0)
    for i, value in enumerate(values):
        content[matrix + 4 * i : matrix + 4 * i + 4] = (value << 16).to_bytes(4, "big", signed=True)
    other = path.with_name(f"turned-{degrees}.mp4")
    other.write_bytes(content)
    return other


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_video_that_is_stored_turned(tmp_path, degrees):
    image = draw((96, 128), [(2, (10, 20, 50, 40))])
    clip = turned(make_video(tmp_path / "clip.mp4", [image] * 3), degrees)
    with av.open(str(clip)) as file:
        assert next(file.decode(video=0)).rotation % 360 == degrees, "the file is as it is meant"
    upright = np.rot90(image, degrees // 90)
    made = predict_files(finder(), [clip], tmp_path / "found")
    (expected,) = finder().predict(np.ascontiguousarray(upright)).boxes.tolist()
    assert lines_of(made.files[1])[0]["detections"][0]["box"] == pytest.approx(expected, abs=1)
    assert decoded(made.files[0])[0][1].shape == upright.shape


def test_sound_is_left_out_and_that_is_reported(tmp_path, capsys, model_file):
    clip = tmp_path / "clip.mp4"
    with av.open(str(clip), "w") as file:
        video, audio = file.add_stream("libx264", rate=10), file.add_stream("aac", rate=44100)
        video.width, video.height, video.pix_fmt = 128, 96, "yuv420p"
        for image in moving(3):
            file.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.rate = 44100
        file.mux(audio.encode(sound))
        file.mux(video.encode())
        file.mux(audio.encode())
    assert main(["predict", model_file, str(clip), "--output", f"{tmp_path}/found"]) == 0
    assert f"{clip}: 3 frames, 0:00; without its sound" in capsys.readouterr().out
    with av.open(f"{tmp_path}/found/clip.mp4") as file:
        assert [stream.type for stream in file.streams] == ["video"]


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "mpeg4"), ("a.webm", "libvpx"), ("a.mov", "libx264")])
def test_other_containers(tmp_path, name, codec):
    clip = make_video(tmp_path / name, list(moving(5)), codec=codec)
    made = predict_files(finder(), [clip], tmp_path / "found")
    assert made.videos[0].frames == len(decoded(made.files[0])) == 5
    bare = clip.rename(tmp_path / "recording")
    assert [video.source for video in find_sources([bare]).videos] == [str(bare)], "known by its first bytes"


# ---------------------------------------------------------------------------------------------------------- tracking


def test_numbers_stay_with_moving_objects(clip, tmp_path):
    pytest.importorskip("trackers", reason="tracking needs the extra [video]")
    made = predict_files(finder(), [clip], tmp_path / "found", videos=TRACKED)
    lines = lines_of(made.files[1])
    assert all(d["id"] is None for d in lines[0]["detections"]), "seen once is not yet an object"
    rows: dict[str, set] = {"upper": set(), "lower": set(), "green": set()}
    for line in lines[2:]:
        assert len({d["id"] for d in line["detections"]}) == len(line["detections"])
        for d in line["detections"]:
            rows["green" if d["name"] == "green" else "upper" if d["box"][1] < 30 else "lower"].add(d["id"])
    assert all(len(ids) == 1 for ids in rows.values()), f"through the time out of sight too: {rows}"
    assert None not in set.union(*rows.values())
    assert made.videos[0].objects == 3
    assert len(decoded(made.files[0])) == 30


class Flickering(ColourFinder):
    """In every third frame the scores are low."""

    frames = 0

    def _detect(self, image, threshold, limit):
        result = super()._detect(image, 0, limit)
        result.scores -= 0.35 * (self.frames % 3 == 2)
        self.frames += 1
        return result.above(threshold)


def test_faint_detections_keep_a_number_alive_and_are_not_shown(clip, tmp_path):
    pytest.importorskip("trackers", reason="tracking needs the extra [video]")
    made = predict_files(
        Flickering(smallest=60), [clip], tmp_path / "found", threshold=0.6, outputs=UNDRAWN, videos=TRACKED
    )
    lines = lines_of(made.files[0])
    assert all((len(line["detections"]) == 0) == (i % 3 == 2 or False) for i, line in enumerate(lines))
    assert {d["id"] for line in lines[3:] for d in line["detections"] if d["name"] == "green"} == {
        lines[3]["detections"][-1]["id"]
    }
    assert made.videos[0].objects == 3


def test_tracking_keeps_to_the_lowest_threshold_of_the_model(clip, tmp_path):
    pytest.importorskip("trackers", reason="tracking needs the extra [video]")
    thresholds = set()

    class Strict(ColourFinder):
        least_threshold = 0.45

        def predict(self, images, *, threshold=None, **options):
            thresholds.add(threshold)
            return super().predict(images, threshold=threshold, **options)

    made = predict_files(
        Strict(smallest=60), [clip], tmp_path / "found", threshold=0.6, outputs=UNDRAWN, videos=TRACKED
    )
    assert thresholds == {0.45}
    assert made.videos[0].objects == 3


def test_numbers_are_drawn():
    image = draw((200, 300), [(0, (50, 60, 150, 160))])
    found = ColourFinder().predict(image)
    plain, numbered = (np.asarray(found.draw(image, numbers)) for numbers in ([None], [7]))
    other = np.asarray(found.draw(image, [8]))
    np.testing.assert_array_equal(plain, np.asarray(found.draw(image)))
    assert (plain != numbered).any(axis=2)[:60].sum() > 50, "in the label above the box"
    assert (numbered != other).any()
    np.testing.assert_array_equal(plain[62:158], numbered[62:158])


# ----------------------------------------------------------------------------------------------------------- faults


def test_a_video_that_is_cut_short(tmp_path):
    """The head is at the front and promises 30 frames; half of the rest is there."""
    noise = np.random.default_rng(0).integers(0, 60, (30, 96, 128, 3), dtype=np.uint8)
    images = [np.maximum(image, grain) for image, grain in zip(moving(30), noise)]
    clip = make_video(tmp_path / "clip.mp4", images, container={"movflags": "faststart"}, options={"g": "5"})
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    made = predict_files(finder(), [clip], tmp_path / "found")
    (video,) = made.videos
    assert 5 < video.frames < 25
    assert video.problem == f"it is damaged or cut short: {video.frames} of 30 frames could be read"
    assert len(lines_of(made.files[1])) == len(decoded(made.files[0])) == video.frames


def test_files_that_are_no_videos(clip, tmp_path):
    whole = clip.read_bytes()
    (tmp_path / "headless.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.avi").write_text("this is text\n" * 100)
    (tmp_path / "list.mkv").write_text("#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    with av.open(f"{tmp_path}/sound.mp4", "w") as file:
        audio = file.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.rate = 44100
        file.mux(audio.encode(sound))
        file.mux(audio.encode())
    made = predict_files(finder(), [tmp_path, clip], tmp_path / "found")
    assert [video.frames for video in made.videos] == [30]
    reasons = {Path(name).name: reason for name, reason in made.unreadable}
    assert set(reasons) == {"headless.mp4", "empty.mp4", "text.avi", "list.mkv", "sound.mp4"}
    assert reasons.pop("sound.mp4") == "it has no video track"
    assert all(reason.startswith("it is damaged, cut short or no video") for reason in reasons.values()), reasons
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == ["clip.jsonl", "clip.mp4"]
    with pytest.raises(WorkError, match=r"no video could be read: .*text.avi: it is damaged, cut short or no video"):
        predict_files(finder(), [tmp_path / "text.avi"], tmp_path / "none")


def test_a_video_without_a_frame(tmp_path):
    clip = tmp_path / "none.mkv"
    with av.open(str(clip), "w") as file:
        stream = file.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        file.start_encoding()
    with pytest.raises(WorkError, match=r"none\.mkv: it ends before its first frame"):
        predict_files(finder(), [clip], tmp_path / "found")
    assert not (tmp_path / "found").exists()


def test_damaged_frames_in_the_middle_are_skipped(tmp_path):
    clip = make_video(tmp_path / "clip.avi", list(moving(30)), codec="mpeg4")
    content = bytearray(clip.read_bytes())
    start = len(content) // 2
    content[start : start + 1500] = bytes(1500)
    clip.write_bytes(content)
    made = predict_files(finder(), [clip], tmp_path / "found")
    (video,) = made.videos
    assert 10 < video.frames <= 30
    assert len(decoded(made.files[0])) == video.frames
    assert video.problem or video.frames == 30


def test_the_disk_is_full(clip, tmp_path, monkeypatch):
    """/dev/full takes no byte."""
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    folder = tmp_path / "found"
    folder.mkdir()
    monkeypatch.setattr("secrets.token_hex", lambda count: "0")
    (folder / ".0.part.mp4").symlink_to("/dev/full")
    with pytest.raises(WorkError, match=r"cannot write .*clip.mp4: no space left on device"):
        predict_video(Predictor(finder(), PredictOptions(0.3)), Video(str(clip), "file", "clip"), folder)
    assert not (folder / "clip.mp4").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, None])
def test_an_end_in_the_middle_finishes_the_files(clip, tmp_path, error):
    """After Ctrl-C twice, or when a callback stops it: the video plays, the lines are whole."""

    class Interrupted(ColourFinder):
        def predict(self, images, **options):
            if len(self.calls) == 3 and error:
                raise error
            return super().predict(images, **options)

    run = Predictor(Interrupted(smallest=60), PredictOptions(0.3, batch_size=2))
    video = Video(str(clip), "file", "clip")
    callbacks = Callbacks(stop=lambda: len(run.detector.calls) == 4)
    if error:
        with pytest.raises(error):
            predict_video(run, video, tmp_path, callbacks=callbacks)
    else:
        assert predict_video(run, video, tmp_path, callbacks=callbacks).stopped
    count = 6 if error else 8
    assert [line["frame"] for line in lines_of(tmp_path / "clip.jsonl")] == list(range(count))
    assert len(decoded(tmp_path / "clip.mp4")) == count
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.jsonl", "clip.mp4"]


@pytest.mark.slow
def test_ctrl_c_on_the_command(model_file, tmp_path):
    """A real signal to a real process, in the middle of a video."""
    clip = make_video(tmp_path / "clip.mp4", itertools.islice(itertools.cycle(moving()), 800))
    command = [sys.executable, "-m", "retinanet", "predict", model_file, str(clip), "--output", f"{tmp_path}/found"]
    process = subprocess.Popen(
        [*command, "--batch-size", "1"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    lines = tmp_path / "found" / "clip.jsonl"
    while process.poll() is None and not (lines.exists() and lines.stat().st_size > 500):
        threading.Event().wait(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.strip().splitlines()[-1] == "stopped; not all inputs were processed"
    count = len(lines_of(lines))
    assert 0 < count < 800
    assert f"{clip}: {count} frames" in out
    assert "stopped" in out
    assert len(decoded(tmp_path / "found" / "clip.mp4")) == count


def test_few_frames_are_in_memory_at_a_time(clip, monkeypatch):
    """A reader that nobody takes from stops after as many frames as may wait."""
    most = 0
    alive = 0
    real = Frames._upright

    def watched(self, frame):
        nonlocal most, alive
        alive += 1
        most = max(most, alive)
        return real(self, frame)

    monkeypatch.setattr(Frames, "_upright", watched)
    with Frames(Video(str(clip), "file", "clip"), ahead=3) as frames:
        for number, frame in enumerate(frames):
            if number < 3:
                threading.Event().wait(0.2)
            alive -= 1
            assert frame.number == number
    assert number == 29
    assert most <= 3 + 2, "those that wait, one that wants to, and the one just taken"


# --------------------------------------------------------------------------------------------- streams and cameras


@pytest.fixture
def server(tmp_path):
    """Files of ``tmp_path / "web"``; /live is an endless MJPEG stream as cameras send it, until the client leaves."""
    folder = tmp_path / "web"
    folder.mkdir()
    image = _jpeg(draw((96, 128), [(0, (10, 10, 40, 40))]))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            if self.path != "/live":
                super().do_GET()
                return
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            try:
                while True:
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(image)}\r\n\r\n"
                    self.wfile.write(head.encode() + image + b"\r\n")
                    threading.Event().wait(0.01)
            except OSError:
                pass

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))
    ) as serving:
        serving.daemon_threads = True
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_address[1]}"
        serving.shutdown()


def _jpeg(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def test_a_video_from_the_web(clip, server, tmp_path):
    (tmp_path / "web" / "a b.mp4").write_bytes(clip.read_bytes())
    made = predict_files(finder(), [f"{server}/a%20b.mp4?token=1"], tmp_path / "found")
    assert made.videos[0].frames == 30
    assert [path.name for path in made.files] == ["a-20b.mp4", "a-20b.jsonl"]
    with pytest.raises(WorkError, match=r"no video could be read: http://127.0.0.1:\d+/no.mp4: .*(not found|404)"):
        predict_files(finder(), [f"{server}/no.mp4"], tmp_path / "none")


def test_a_stream_without_an_end(server, tmp_path):
    """Frames go one by one until a callback stops it; then the files are whole."""
    detector = finder()
    callbacks = Callbacks(stop=lambda: len(detector.calls) >= 5)
    made = predict_files(detector, [f"{server}/live"], tmp_path / "found", callbacks=callbacks)
    (video,) = made.videos
    assert set(detector.calls) == {1}
    assert video.stopped
    assert video.frames == len(lines_of(made.files[1])) == len(decoded(made.files[0])) == 5
    assert [d["name"] for line in lines_of(made.files[1]) for d in line["detections"]] == ["red"] * 5


def test_a_stream_that_ends_is_reported(tmp_path):
    clip = make_video(tmp_path / "clip.ts", list(moving(6)))
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def send():
            client, _ = listening.accept()
            with client:
                client.sendall(clip.read_bytes())

        threading.Thread(target=send).start()
        made = predict_files(finder(), [f"tcp://127.0.0.1:{listening.getsockname()[1]}"], tmp_path / "found")
    assert made.videos[0].frames + made.videos[0].dropped == 6
    assert made.videos[0].problem == "the sender ended it"


def test_frames_of_a_live_source_are_dropped(server, tmp_path):
    """A slow network gets fewer frames of a live stream, and the newest ones."""
    video = Video(f"{server}/live", "url", "live")
    with Frames(video) as frames:
        numbers = []
        for frame in frames:
            numbers.append(frame.number)
            threading.Event().wait(0.15)
            if len(numbers) == 6:
                break
    assert frames.dropped > 5
    assert numbers == sorted(numbers)
    assert numbers[-1] > 10


def test_a_stream_that_falls_silent(tmp_path, monkeypatch):
    monkeypatch.setattr(frames_module, "PATIENCE", (1.0, 1.0))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.mp4"
        with pytest.raises(WorkError, match="no answer came in time"):
            predict_files(finder(), [url], tmp_path / "found")


def test_a_camera_that_is_not_there(model_file, tmp_path, capsys):
    assert main(["predict", model_file, "camera:97", "--output", f"{tmp_path}/found"]) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: no video could be read: camera:97: ")


# ---------------------------------------------------------------------------------------------------------- sources


@pytest.mark.parametrize(
    ("source", "opened", "kind", "name"),
    [
        ("camera:0", "0", "camera", "camera-0"),
        ("3", "3", "camera", "camera-3"),
        ("camera:/dev/video2", "/dev/video2", "camera", "camera-dev-video2"),
        ("rtsp://me:secret@cam.local/door/1.sdp", None, "url", "1"),
        ("https://example.org/films/my.trip.mp4?x=1", None, "url", "my.trip"),
        ("udp://@:1234", None, "url", "udp"),
    ],
)
def test_cameras_and_urls(source, opened, kind, name):
    (video,) = find_sources([source]).videos
    assert (video.source, video.kind, video.name) == (opened or source, kind, name)
    assert "secret" not in video.shown


def test_a_file_named_0_is_no_camera(clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("0").write_bytes(clip.read_bytes())
    assert find_sources(["0"]).videos == [Video("0", "file", "0")]
    assert find_sources(["camera:0"]).videos == [Video("0", "camera", "camera-0")]


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (["no.mp4"], r"no video no\.mp4"),
        (["ftp://a/b.mp4"], "ftp:// .*http, https, rtsp"),
        (["http:///b.mp4"], r"http:///b\.mp4 .*no host"),
        (["https://me:x@a.org/b.jpg"], r"https://a\.org/b\.jpg is an image"),
        (["0", "rtsp://a/b"], "one camera or stream at a time, not camera:0 and rtsp://a/b"),
    ],
)
def test_sources_that_are_refused(sources, message):
    with pytest.raises(RequestError, match=message):
        find_sources(sources)


def test_live_sources_come_last(clip):
    assert [video.kind for video in find_sources(["0", str(clip)]).videos] == ["file", "camera"]


# ------------------------------------------------------------------------------------------------------ the command


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    torch.manual_seed(0)
    model = RetinaNet(tiny().model, 2, load_weights=False)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    Detector(model, ("red", "green")).save(path)
    return str(path)


def test_the_command(model_file, clip, tmp_path, capsys):
    pytest.importorskip("trackers", reason="tracking needs the extra [video]")
    result = tmp_path / "result.json"
    options = ["--track", "--stride", "2", "--threshold", "0", "--max-detections", "3", "--json", str(result)]
    assert main(["predict", model_file, str(clip), "--output", f"{tmp_path}/found", *options]) == 0
    out = capsys.readouterr().out
    assert "45 detections in 15 frames, score above 0: " in out
    assert f"{clip}: 15 frames, 0:03; " in out
    assert f"in {tmp_path}/found: clip.mp4, clip.jsonl" in out
    (video,) = json.loads(result.read_text())["videos"]
    assert video["frames"] == 15
    assert video["source"] == str(clip)
    assert video["files"] == [f"{tmp_path}/found/clip.mp4", f"{tmp_path}/found/clip.jsonl"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--track"], "--track is for videos"),
        (["--stride", "2"], "--stride is for videos"),
        (["--stride", "0"], "--stride must be at least 1, not 0"),
        (["--slices", "0"], "--slices must be at least 1, not 0"),
        (["--slices", "64", "--overlap", "1"], "overlap of tiles must be in [0, 0.9], not 1"),
    ],
)
def test_the_command_refuses(model_file, tmp_path, capsys, options, message):
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    assert main(["predict", model_file, f"{tmp_path}/a.png", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


@pytest.mark.parametrize(
    ("missing", "message"), [("av", "error: videos.* PyAV"), ("trackers", "error: --track needs .* trackers")]
)
def test_a_missing_extra_is_one_line(model_file, clip, monkeypatch, capsys, missing, message):
    monkeypatch.setitem(sys.modules, missing, None)
    assert main(["predict", model_file, str(clip), "--track"]) == 2
    assert re.fullmatch(rf"{message}: pip install 'retinanet\[video\]'\n", capsys.readouterr().err)


def test_a_video_that_cannot_be_opened():
    with pytest.raises(VideoError, match=r"cannot read the video no\.mp4: "):
        Frames(Video("no.mp4", "file", "no"))
    assert Fraction(1, 90_000) == CLOCK
