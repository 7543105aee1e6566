# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One scene in one file, to send to another robot: a row of the bank as safetensors.

The tensors have the names and types that they have in the bank, the classifier's weights among
them; the other columns are JSON in the file's metadata, beside a checksum of all.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from safetensors import SafetensorError

from mspn_ros.records import ModelError, SceneRow
from mspn_ros.store.files import write_whole
from mspn_ros.store.row_format import (
    CLASSIFIER_TYPE,
    COLUMNS,
    MAX_ROW_BYTES,
    pack_row,
    row_checksum,
    unpack_classifier,
    unpack_row,
)

SCENE_FILE_FORMAT = 2
_KEY = "mspn_scene"
_CLASSIFIER = "classifier_weight"


def write_scene_file(path: Path, row: SceneRow) -> None:
    """Write one scene, whole or not at all; an existing file is replaced.

    Raises:
        ModelError: the file cannot be written.
    """
    columns = dict(zip(COLUMNS, pack_row(row), strict=True))
    tensors = safetensors.numpy.load(columns.pop("tensors"))
    tensors[_CLASSIFIER] = unpack_classifier(columns.pop("classifier"))
    fields = {
        "format": SCENE_FILE_FORMAT,
        "columns": columns,
        "checksum": row_checksum(0, pack_row(row)),
    }
    write_whole(path, safetensors.numpy.save(tensors, metadata={_KEY: json.dumps(fields)}))


def read_scene_file(path: Path) -> SceneRow:
    """The scene of a file by ``write_scene_file``; its id is 0.

    Raises:
        ModelError: missing, over the size of a row, truncated, changed, or not a scene's file.
    """
    try:
        size = path.stat().st_size
        if size > MAX_ROW_BYTES:
            raise ModelError(
                f"{path}: {size} bytes are over the limit of {MAX_ROW_BYTES} for a scene; name a "
                "file that 'mspn scenes export' wrote"
            )
        with safetensors.safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            fields = json.loads((file.metadata() or {})[_KEY])
        version, columns = fields["format"], dict(fields["columns"])
        weight_F = np.asarray(tensors.pop(_CLASSIFIER), CLASSIFIER_TYPE)
        blobs = {"classifier": weight_F.tobytes(), "tensors": safetensors.numpy.save(tensors)}
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file; 'mspn scenes export' writes one") from error
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{path}: truncated, or not written by 'mspn scenes export' "
            f"({type(error).__name__}: {error}); copy it anew"
        ) from error
    if version != SCENE_FILE_FORMAT:
        raise ModelError(
            f"{path}: a scene file of format {version!r:.20}, this version reads "
            f"{SCENE_FILE_FORMAT}; export the scene with a version like this one"
        )
    return _checked(path, {**columns, **blobs}, fields)


def _checked(path: Path, columns: dict[str, Any], fields: dict[str, Any]) -> SceneRow:
    if columns.keys() != COLUMNS.keys():
        odd = ", ".join(sorted(columns.keys() ^ COLUMNS.keys()))
        raise ModelError(f"{path}: fields {odd:.200} are missing or unknown; export it anew")
    values = tuple(columns[name] for name in COLUMNS)
    if row_checksum(0, values) != fields.get("checksum"):
        raise ModelError(f"{path}: is damaged (its checksum differs); copy it anew")
    return unpack_row(0, values, str(path))
