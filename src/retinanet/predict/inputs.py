"""Finds the inputs of a prediction: images, videos, cameras and streams, alone or in folders and patterns."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from retinanet.common.arguments import whole
from retinanet.common.errors import RequestError
from retinanet.data.image_io import SUFFIXES
from retinanet.data.image_sources import Kinds, expand

VIDEOS = frozenset([".mp4", ".m4v", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp"])
MEDIA = Kinds(SUFFIXES | VIDEOS, "image or video")
SCHEMES = frozenset(["http", "https", "rtsp", "rtsps", "rtmp", "rtmps", "udp", "tcp", "srt"])
STILL_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")  # images in the same container as MP4
SIGNATURES = (
    b"\x1aE\xdf\xa3",
    b"FLV\x01",
    b"\x00\x00\x01\xba",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
)
"""First bytes of Matroska, FLV, MPEG and ASF files."""


@dataclass(frozen=True)
class Video:
    """A video file, camera or stream."""

    source: str
    """A path, the number or device of a camera, or a URL."""
    kind: str
    """"file", "camera" or "url"."""
    name: str
    """Name of the files written for it, relative to the output folder, without a suffix."""

    @property
    def shown(self) -> str:
        """The source for messages: without the password that a URL may hold."""
        if self.kind != "url":
            return f"camera:{self.source}" if self.kind == "camera" else self.source
        return re.sub(r"//[^/@]*@", "//", self.source)

    @property
    def live(self) -> bool:
        """Whether it never ends by itself, as far as the source shows."""
        return self.kind == "camera" or (self.kind == "url" and not self.source.lower().startswith("http"))


@dataclass
class Sources:
    """What :func:`find_sources` found: every file once, in the given order."""

    images: list[tuple[Path, str]] = field(default_factory=list)
    """File, and name of the drawn image relative to the output folder."""
    videos: list[Video] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """Files in the folders that are not an image or video, or cannot be used, and why."""
    max_pixels: int | None = None
    """Images of more pixels are not read, see :func:`retinanet.data.image_io.pixel_limit`."""


def find_sources(sources: str | Path | Sequence[str | Path], max_pixels: int | None = None) -> Sources:
    """All images and videos of these sources. A file is a video by its suffix or, if unknown, by its first bytes.

    Args:
        sources: files, folders (with their subfolders), patterns, ``camera:0`` or ``0``, and URLs. An existing file
            of that name comes first.
        max_pixels: see :class:`Sources`.

    Raises:
        RequestError: a source does not exist, matches nothing or holds neither image nor video.
    """
    if isinstance(sources, str | os.PathLike):  # its characters would be sources: "/" is all files of the machine
        sources = [os.fspath(sources)]
    seen: set[str] = set()
    names: dict[str, int] = {}
    video_names: dict[str, int] = {}
    found = Sources(max_pixels=None if max_pixels is None else whole("max_pixels", max_pixels))
    for source in sources:
        special = None if os.path.exists(source) else _special(str(source))
        if special:
            if special.source not in seen:
                seen.add(special.source)
                name = free_name(Path(f"{special.name}.mp4"), video_names)
                found.videos.append(Video(special.source, special.kind, name))
            continue
        for path, below in expand(source, found.skipped, MEDIA):
            absolute = os.path.abspath(path)
            if absolute in seen:
                continue
            seen.add(absolute)
            if is_video(path):
                found.videos.append(Video(str(path), "file", free_name(below, video_names)))
            else:
                # PNG stays PNG, all others become JPEG.
                suffix = below.suffix if below.suffix.lower() in (".jpg", ".jpeg", ".png") else ".jpg"
                found.images.append((path, free_name(below, names) + suffix))
    if not found.images and not found.videos:
        raise RequestError("which images? give files, folders or patterns")
    found.videos.sort(key=lambda video: video.live)  # a live source never ends, so it comes last
    endless = [video.shown for video in found.videos if video.live]
    if len(endless) > 1:
        raise RequestError(f"one camera or stream at a time, not {' and '.join(endless)}: start a command for each")
    return found


def is_video(path: Path) -> bool:
    """Whether a file is a video: by its suffix, or by its first bytes where the suffix is unknown."""
    suffix = path.suffix.lower()
    if not os.path.isfile(path):  # reading a pipe would wait for its writer
        return False
    if suffix in VIDEOS or suffix in SUFFIXES:
        return suffix in VIDEOS
    try:
        with open(path, "rb") as file:
            start = file.read(189)
    except OSError:
        return False
    return (
        (start[4:8] == b"ftyp" and start[8:12] not in STILL_BRANDS)
        or (start[:4] == b"RIFF" and start[8:11] == b"AVI")
        or start.startswith(SIGNATURES)
        or (len(start) == 189 and start[0] == start[188] == 0x47)  # MPEG transport stream
    )


def _special(source: str) -> Video | None:
    """The camera or URL that a source names; None where it names a file."""
    camera = re.fullmatch(r"(?:camera:)?(\d+)|camera:(.+)", source)
    if camera:
        device = camera[1] or camera[2]
        return Video(device, "camera", "camera-" + re.sub(r"\W+", "-", device).strip("-"))
    scheme, colon, _ = source.partition("://")
    if not colon or not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9+.-]*", scheme):
        return None
    if scheme.lower() not in SCHEMES:
        raise RequestError(f"{scheme}:// is not read: give http, https, rtsp, rtmp, udp, tcp or srt, or a file")
    try:
        parts = urlsplit(source)
        host, path = parts.hostname, parts.path
    except ValueError:
        host, path = None, ""
    if not host and scheme.lower() != "udp":
        raise RequestError(f"{source} is not a valid URL: it has no host")
    if Path(path).suffix.lower() in SUFFIXES:
        raise RequestError(f"{Video(source, 'url', '').shown} is an image: download it, and name the file")
    stem = Path(path).stem or host or scheme
    return Video(source, "url", re.sub(r"[^\w.-]+", "-", stem).strip(".-") or "stream")


def free_name(name: Path, taken: dict[str, int]) -> str:
    """``name`` without its suffix, with a number where the name is taken. ``taken`` counts the names."""
    plain = name.with_suffix("") if name.suffix else name
    free, key = plain, _folded(plain)
    while _folded(free) in taken:
        taken[key] += 1
        free = plain.with_name(f"{plain.name}-{taken[key]}")
    taken[_folded(free)] = 1
    return free.as_posix()


def _folded(name: Path) -> str:
    """Equal for names that are the same on some file system, which ignores case or composes accents."""
    return unicodedata.normalize("NFC", str(name)).lower()
