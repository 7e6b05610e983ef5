"""What a person names to look at: images, videos, cameras and streams, alone or in folders and patterns."""

from __future__ import annotations

import glob
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from retinanet.common.atomic_files import what_is_wrong
from retinanet.common.errors import RequestError
from retinanet.data.image_io import SUFFIXES

VIDEOS = frozenset([".mp4", ".m4v", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp"])
SCHEMES = frozenset(["http", "https", "rtsp", "rtsps", "rtmp", "rtmps", "udp", "tcp", "srt"])
STILLS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")  # images in the same container as MP4
SHOWN = 3  # files that a message names
RAW = "a camera's raw file"
UNREAD = {
    ".jxl": "JPEG XL",
    ".pdf": "PDF",
    ".svg": "SVG",
    ".psd": "PSD",
    ".eps": "EPS",
    ".exr": "OpenEXR",
    ".dcm": "DICOM",
    **dict.fromkeys(
        [".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".raf", ".orf", ".rw2"], RAW
    ),
    **dict.fromkeys([".pef", ".srw", ".x3f", ".3fr", ".iiq", ".erf", ".kdc", ".raw"], RAW),
}
"""Endings of images that are not read, and what they are."""
STARTS = (b"\x1aE\xdf\xa3", b"FLV\x01", b"\x00\x00\x01\xba", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11")  # MKV, FLV, MPEG, ASF


@dataclass(frozen=True)
class Video:
    """A video to look at."""

    address: str
    """A path, the number or device of a camera, or an URL."""
    kind: str
    """"file", "camera" or "url"."""
    name: str
    """Of what is written for it, relative to the output folder, without an ending."""

    @property
    def shown(self) -> str:
        """The address for people: without the password that an URL may hold."""
        if self.kind != "url":
            return f"camera:{self.address}" if self.kind == "camera" else self.address
        return re.sub(r"//[^/@]*@", "//", self.address)

    @property
    def live(self) -> bool:
        """Whether it never ends by itself, as far as the address tells."""
        return self.kind == "camera" or (self.kind == "url" and not self.address.lower().startswith("http"))


@dataclass
class Sources:
    """Every file once, in the order of naming."""

    images: list[tuple[Path, str]] = field(default_factory=list)
    """File, and the name of the drawn image relative to the output folder."""
    videos: list[Video] = field(default_factory=list)
    passed_over: list[tuple[str, str]] = field(default_factory=list)
    """Files in the folders that are neither, or cannot be used, and why."""


def find_sources(sources: Sequence[str | Path]) -> Sources:
    """Look up what was named. A file is a video by its ending or, where that says nothing, by its first bytes.

    Args:
        sources: files, folders (with their subfolders), patterns, ``camera:0`` or ``0``, and URLs. A file of that name
            goes before all else.

    Raises:
        RequestError: a source that does not exist, matches nothing or holds neither image nor video.
    """
    seen: set[str] = set()
    names: dict[str, int] = {}
    video_names: dict[str, int] = {}
    found = Sources()
    for source in sources:
        special = None if os.path.exists(source) else _special(str(source))
        if special:
            if special.address not in seen:
                seen.add(special.address)
                name = free_name(Path(f"{special.name}.mp4"), video_names)
                found.videos.append(Video(special.address, special.kind, name))
            continue
        for path, below in _expand(source, found.passed_over):
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
    found.videos.sort(key=lambda video: video.live)  # what never ends comes last
    endless = [video.shown for video in found.videos if video.live]
    if len(endless) > 1:
        raise RequestError(f"one camera or stream at a time, not {' and '.join(endless)}: start a command for each")
    return found


def is_video(path: Path) -> bool:
    """By the ending; by the first bytes where the ending is neither a video's nor an image's."""
    suffix = path.suffix.lower()
    if not os.path.isfile(path):  # a pipe would be waited for
        return False
    if suffix in VIDEOS or suffix in SUFFIXES:
        return suffix in VIDEOS
    try:
        with open(path, "rb") as file:
            start = file.read(189)
    except OSError:
        return False
    return (
        (start[4:8] == b"ftyp" and start[8:12] not in STILLS)
        or (start[:4] == b"RIFF" and start[8:11] == b"AVI")
        or start.startswith(STARTS)
        or (len(start) == 189 and start[0] == start[188] == 0x47)  # MPEG transport stream
    )


def _special(source: str) -> Video | None:
    """A camera or an URL."""
    camera = re.fullmatch(r"(?:camera:)?(\d+)|camera:(.+)", source)
    if camera:
        address = camera[1] or camera[2]
        return Video(address, "camera", "camera-" + re.sub(r"\W+", "-", address).strip("-"))
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
        raise RequestError(f"{source} is no address: there is no host in it")
    if Path(path).suffix.lower() in SUFFIXES:
        raise RequestError(f"{Video(source, 'url', '').shown} is an image: download it, and name the file")
    stem = Path(path).stem or host or scheme
    return Video(source, "url", re.sub(r"[^\w.-]+", "-", stem).strip(".-") or "stream")


def _expand(source: str | Path, passed_over: list[tuple[str, str]]) -> Iterator[tuple[Path, Path]]:
    """Files of one source, and their names below it; of its folders what is not used goes into ``passed_over``."""
    path = Path(source)
    if os.path.isdir(path):
        before, files = len(passed_over), _files(path, passed_over)
        if not files:
            others = ", ".join(f"{name} ({why})" for name, why in passed_over[before:][:SHOWN])
            more = "; passed over: " + others if others else ""
            raise RequestError(f"there is no image in the folder {path} or its subfolders{more}")
        yield from ((file, file.relative_to(path)) for file in files)
    elif os.path.isfile(path):
        yield path, Path(path.name)
    elif os.path.exists(path):
        raise RequestError(f"{path} is neither a file nor a folder")
    elif glob.has_magic(str(source)):
        empty = True
        for match in map(Path, sorted(glob.glob(str(source), recursive=True))):
            folder = os.path.isdir(match)
            for file in _files(match, passed_over) if folder else [match]:
                empty = False
                yield file, file.relative_to(match if folder else match.parent)
        if empty:
            raise RequestError(f"nothing matches the pattern {source}")
    else:
        raise RequestError(f"there is no {'video' if path.suffix.lower() in VIDEOS else 'image or folder'} {source}")


def _files(folder: Path, passed_over: list[tuple[str, str]]) -> list[Path]:
    """Images and videos in a folder and its subfolders, by their endings; all else goes into ``passed_over``."""
    files: list[Path] = []
    others: list[tuple[str, str]] = []

    def unreadable(error: OSError) -> None:
        others.append((str(error.filename), what_is_wrong(error)))

    for parent, folders, names in os.walk(folder, onerror=unreadable):
        for name in list(folders):
            path = Path(parent, name)
            if name.startswith("."):
                others.append((str(path), "hidden"))
                folders.remove(name)
            elif path.is_symlink():  # os.walk does not follow it
                others.append((str(path), "a link to a folder, not followed: name the folder itself"))
        for path in (Path(parent, name) for name in names):
            reason = _unused(path)
            if reason:
                others.append((str(path), reason))
            else:
                files.append(path)
    passed_over += sorted(others)
    return sorted(files)


def _unused(path: Path) -> str:
    """Why a file in a folder is no image or video to use; empty where it is one."""
    suffix = path.suffix.lower()
    if path.name.startswith("."):
        return "hidden"
    if not os.path.isfile(path):
        return "no regular file" if os.path.exists(path) else "a link to nothing"
    if suffix in UNREAD:
        return f"{UNREAD[suffix]} is not read: convert it to JPEG or PNG"
    return "" if suffix in SUFFIXES or suffix in VIDEOS else "neither an image nor a video by its ending"


def free_name(name: Path, taken: dict[str, int]) -> str:
    """``name`` without its ending, which differs between the files written for it; numbered where it is taken."""
    plain = name.with_suffix("") if name.suffix else name
    free, key = plain, _folded(plain)
    while _folded(free) in taken:
        taken[key] += 1
        free = plain.with_name(f"{plain.name}-{taken[key]}")
    taken[_folded(free)] = 1
    return free.as_posix()


def _folded(name: Path) -> str:
    """Equal for names that some file system takes for one: without case, or with accents composed."""
    return unicodedata.normalize("NFC", str(name)).lower()
