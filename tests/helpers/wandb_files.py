"""Reads what W&B wrote in its offline mode: a log in LevelDB's format with protocol buffers in it."""

import json
import struct
from pathlib import Path

BLOCK = 32768
HEADER = 7  # of the file, and of each chunk: checksum (4), length (2), kind (1)
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def messages(path: Path):
    """The bytes of each record."""
    content, at, parts = path.read_bytes(), HEADER, []
    while at + HEADER <= len(content):
        if BLOCK - at % BLOCK < HEADER:  # the rest of a block is padding
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + HEADER])
        parts.append(content[at + HEADER : at + HEADER + length])
        at += HEADER + length
        if kind in (FULL, LAST):
            yield b"".join(parts)
            parts = []


def records(folder: Path):
    """The records of the runs in a ``wandb`` folder, oldest run first."""
    from wandb.proto import wandb_internal_pb2 as protocol

    for path in sorted(folder.glob("offline-run-*/*.wandb")):
        for message in messages(path):
            record = protocol.Record()
            record.ParseFromString(message)
            yield record


def name(item):
    return item.key or "/".join(item.nested_key)


def history(folder: Path):
    """The rows that ``run.log`` was given."""
    return [
        {name(item): json.loads(item.value_json) for item in record.history.item}
        for record in records(folder)
        if record.WhichOneof("record_type") == "history"
    ]


def of_kind(folder: Path, kind: str):
    return [getattr(record, kind) for record in records(folder) if record.WhichOneof("record_type") == kind]
