"""Reads TensorBoard's event files back."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any


def events(file: Path) -> list[Any]:
    """The events, oldest first; the checksums must be right."""
    from tensorboardX.proto import event_pb2
    from tensorboardX.record_writer import masked_crc32c

    data, found = file.read_bytes(), []
    while data:  # records of a TFRecord file: length, its checksum, the event, its checksum
        length = int.from_bytes(data[:8], "little")
        event = data[12 : 12 + length]
        checksums = struct.unpack("<I", data[8:12]) + struct.unpack("<I", data[12 + length : 16 + length])
        assert checksums == (masked_crc32c(data[:8]), masked_crc32c(event))
        found.append(event_pb2.Event.FromString(event))
        data = data[16 + length :]
    return found


def points(file: Path) -> list[tuple[int, str, float]]:
    """Step, key and value of each point."""
    return [(event.step, value.tag, value.simple_value) for event in events(file) for value in event.summary.value]
