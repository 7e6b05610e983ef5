"""Reads Parquet of Hugging Face's ``datasets``. The images in it are extracted once, into a hidden folder beside it.

Images are read by path everywhere else. The files of a shard get the numbers of its rows as names, so that no name in
the data decides where something is written. Rows are read in small groups: memory does not grow with the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from retinanet.common.atomic_files import replacing, what_is_wrong
from retinanet.common.errors import RequestError, first_line
from retinanet.data.formats.hf_objects import BOX

GROUP = 32  # rows that are in memory
EXTRACTED = ".retinanet-images"
"""The folder of the extracted images."""
DONE = "complete.json"
SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "jpg"),
    (b"\x89PNG", "png"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tif"),
)
SIGNATURES += ((b"MM\0*", "tif"),)
KNOWN = {*(suffix for _, suffix in SIGNATURES), "webp", "img"}
"""Suffixes of extracted images."""
IMAGES = ("image", "img", "images", "jpg", "png")


class ParquetTable:
    """One file."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            RequestError: pyarrow is not installed, or the file cannot be read.
        """
        try:
            parquet = import_module("pyarrow.parquet")
        except ImportError as error:
            raise RequestError(f"{path} needs {error.name or 'pyarrow'}: pip install 'retinanet[parquet]'") from None
        self.path = path
        try:
            if not path.is_file():
                raise RequestError(f"cannot read {path}: it is not a regular file")
            self._file = parquet.ParquetFile(path, memory_map=False, pre_buffer=False)
        except RequestError:
            raise
        except Exception as error:  # pyarrow's errors have no common base that is documented
            raise RequestError(f"{path} is not Parquet: {_short(error)}") from None
        schema = self._file.schema_arrow
        self.columns: list[str] = list(schema.names)
        self.features = _features(schema.metadata)
        self.objects = next((name for name in self.columns if _has_boxes(schema.field(name).type)), None)
        marked = [name for name in self.columns if _is_image(self.features.get(name))]
        self.image = next((name for name in (*marked, *IMAGES) if name in self.columns), None)
        self.image_path = None if self.image is None else _path_column(self.image, schema.field(self.image).type)
        """The column of the images' paths."""

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    def rows(self, columns: list[str]) -> Iterator[dict[str, Any]]:
        """The rows, one after the other.

        Raises:
            RequestError: the file is damaged.
        """
        position = 0
        try:
            for batch in self._file.iter_batches(batch_size=GROUP, columns=columns):
                for row in batch.to_pylist():
                    yield row
                    position += 1
        except Exception as error:
            if isinstance(error, RequestError):
                raise
            raise RequestError(f"{self.path} cannot be read after row {position}: {_short(error)}") from None


def _short(error: Exception) -> str:
    return first_line(error)[:200]


def _features(metadata: Any) -> dict[str, Any]:
    """The description that ``datasets`` puts into the file."""
    try:
        content = json.loads((metadata or {}).get(b"huggingface", b"{}"))
        features = content["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _is_image(feature: Any) -> bool:
    return isinstance(feature, dict) and feature.get("_type") == "Image"


def _path_column(name: str, kind: Any) -> str | None:
    inner = [kind.field(i).name for i in range(getattr(kind, "num_fields", 0))]
    if inner:
        return f"{name}.path" if "path" in inner else None
    return name if str(kind) in ("string", "large_string") else None


def _has_boxes(kind: Any) -> bool:
    """Whether a column has structures with boxes: a structure of lists, or a list of structures."""
    kind = getattr(kind, "value_type", kind)
    return any(kind.field(i).name in BOX for i in range(getattr(kind, "num_fields", 0)))


def extract(table: ParquetTable, root: Path) -> dict[int, Path]:
    """Write the images of a file, unless they are there already.

    Returns:
        The path of the image of each row that has one.

    Raises:
        RequestError: the file is damaged, or the folder cannot be written.
    """
    assert table.image is not None
    name = table.path.relative_to(root).with_suffix("").as_posix().replace("/", "__")
    folder = root / EXTRACTED / name
    known = table.path.stat()
    mark = {"size": known.st_size, "changed": known.st_mtime_ns, "rows": len(table)}
    suffixes = _extracted(folder / DONE, mark)
    if suffixes is None:
        suffixes = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RequestError(
                f"cannot write {folder}: {what_is_wrong(error)}; the images in {table.path.name} are extracted there: "
                "copy the data set to a folder that can be written"
            ) from None
        for position, row in enumerate(table.rows([table.image])):
            content = _content(row[table.image])
            if content is not None:
                suffixes[position] = _suffix(content)
                with replacing(folder / f"{position:08d}.{suffixes[position]}") as part:
                    part.write_bytes(content)
        with replacing(folder / DONE) as part:
            part.write_text(json.dumps(mark | {"suffixes": suffixes}), encoding="utf-8")
    return {position: folder / f"{position:08d}.{suffix}" for position, suffix in suffixes.items()}


def _extracted(done: Path, mark: dict[str, int]) -> dict[int, str] | None:
    """The suffix of each row's image, as the file of a complete extraction says; None if it is of another state.

    The folder may also hold images of an older state, so its content does not tell.
    """
    try:
        content = json.loads(done.read_text(encoding="utf-8"))
        suffixes = {int(position): str(suffix) for position, suffix in content.pop("suffixes").items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return suffixes if content == mark and set(suffixes.values()) <= KNOWN else None


def _content(value: Any) -> bytes | None:
    content = value.get("bytes") if isinstance(value, dict) else value
    return content if isinstance(content, bytes) else None


def _suffix(content: bytes) -> str:
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    return next((suffix for start, suffix in SIGNATURES if content.startswith(start)), "img")
