# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How a ``SceneRow`` becomes columns and comes back: names, bytes, checksums.

The columns of the index come first, classifier row included: SQLite reads the first columns of a
row without its others, so that a bank of any size is ready to answer before its heads are read.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError

from mspn_ros.records import Familiarity, HeldOutErrors, Intrinsics, ModelError, SceneRow

# Column -> SQLite declaration: what is read of all rows when a bank is opened.
INDEX_COLUMNS = {
    "uuid": "TEXT NOT NULL UNIQUE",
    "name": "TEXT NOT NULL UNIQUE",
    "frame_id": "TEXT NOT NULL",
    "map_frame": "TEXT",
    "metres_per_unit": "REAL",
    "backbone_id": "TEXT NOT NULL",
    "head": "TEXT NOT NULL",
    "frames": "INTEGER NOT NULL",
    "bytes": "INTEGER NOT NULL",
    "acceptance_threshold": "REAL NOT NULL",
    "classifier_bias": "REAL NOT NULL",
    "classifier": "BLOB NOT NULL",
}
# All, in the order of pack_row; in the file, the checksums lie between index and the others.
COLUMNS = INDEX_COLUMNS | {
    "position_scale": "REAL NOT NULL",
    "s_t": "REAL NOT NULL",
    "s_q": "REAL NOT NULL",
    "held_out": "TEXT",
    "intrinsics": "TEXT",
    "provenance": "TEXT NOT NULL",
    "created": "TEXT NOT NULL",
    "tensors": "BLOB NOT NULL",
}
CHECKSUMS = {"checksum": "TEXT NOT NULL", "index_checksum": "TEXT NOT NULL"}

# A row is below 64 KB at F = 512; this leaves room for F = 65536 and refuses absurd blobs.
MAX_ROW_BYTES = 16_000_000
CLASSIFIER_TYPE = "<f4"
# Rows whose classifier is handled at once: 1 MB at F = 512, which stays in a processor's cache.
CLASSIFIER_CHUNK = 512
_NAME = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,200}")
_ARRAYS = (
    "position_offset",
    "reference_rotation",
    "box_low",
    "box_high",
    "feature_mean",
    "feature_std",
)
_OPTIONAL_ARRAYS = ("map_from_scene", "feature_axes", "feature_axes_scale")


def pack_row(row: SceneRow) -> tuple[Any, ...]:
    """The values of COLUMNS.

    The classifier's weights are F little-endian float32; all other arrays go into one safetensors
    blob (named, typed). ``bytes`` is the length of all others as ``row_bytes`` counts it.
    """
    arrays = {name: np.ascontiguousarray(getattr(row, name)) for name in _ARRAYS}
    for name in _OPTIONAL_ARRAYS:
        if getattr(row, name) is not None:
            arrays[name] = np.ascontiguousarray(getattr(row, name))
    arrays.update({f"head.{k}": np.ascontiguousarray(v) for k, v in row.head_tensors.items()})
    values: dict[str, Any] = {
        "uuid": row.uuid,
        "name": row.name,
        "frame_id": row.frame_id,
        "map_frame": row.map_frame,
        "metres_per_unit": row.metres_per_unit,
        "backbone_id": row.backbone_id,
        "head": row.head,
        "frames": int(row.frames),
        "acceptance_threshold": float(row.acceptance_threshold),
        "classifier_bias": float(row.classifier_bias),
        "classifier": np.ascontiguousarray(row.classifier_weight, CLASSIFIER_TYPE).tobytes(),
        "position_scale": float(row.position_scale),
        "s_t": float(row.s_t),
        "s_q": float(row.s_q),
        "held_out": None if row.held_out is None else json.dumps(asdict(row.held_out)),
        "intrinsics": None if row.intrinsics is None else json.dumps(asdict(row.intrinsics)),
        "provenance": json.dumps(row.provenance),
        "created": row.created,
        "tensors": safetensors.numpy.save(arrays),
    }
    values["bytes"] = _length(values)
    return tuple(values[name] for name in COLUMNS)


def _length(values: dict[str, Any]) -> int:
    """Of all columns but ``bytes`` itself; numbers as they are written out."""
    return sum(
        len(value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass"))
        for name, value in values.items()
        if name != "bytes"
    )


def row_bytes(row: SceneRow) -> int:
    """What one scene costs in the bank: the bytes of its columns."""
    return int(pack_row(row)[list(COLUMNS).index("bytes")])


def row_checksum(scene_id: int, columns: Sequence[Any]) -> str:
    """SHA-256 hex over the id and every column with its type and length."""
    digest = hashlib.sha256()
    for value in (scene_id, *columns):
        content = value if isinstance(value, bytes) else repr(value).encode()
        digest.update(f"{type(value).__name__}:{len(content)}:".encode() + content)
    return digest.hexdigest()


def index_checksum(scene_id: int, columns: Sequence[Any], checksum: str) -> str:
    """SHA-256 hex over the id, the columns of the index, and the checksum of the whole row.

    Quick, since it is computed of all rows when a bank is opened. Whoever has held it against the
    index knows by ``checksum`` what the whole row must be. Empty, which no row has, where the
    classifier is no blob.
    """
    *small, classifier = columns
    if not isinstance(classifier, bytes):
        return ""
    content = repr((scene_id, *small, checksum)).encode()
    return hashlib.sha256(classifier + content).hexdigest()


def checksums(scene_id: int, columns: Sequence[Any]) -> tuple[str, str]:
    """The values of CHECKSUMS for a row's COLUMNS."""
    checksum = row_checksum(scene_id, columns)
    return checksum, index_checksum(scene_id, columns[: len(INDEX_COLUMNS)], checksum)


def unpack_row(scene_id: int, columns: Sequence[Any], place: str) -> SceneRow:
    """The inverse of ``pack_row``.

    Raises:
        ModelError: a blob or JSON that is no such row's, or numbers that are not finite.
    """
    values = dict(zip(COLUMNS, columns, strict=True))
    try:
        _check_types({name: (value,) for name, value in values.items()}, COLUMNS)
        check_index_columns([(value,) for value in columns[: len(INDEX_COLUMNS)]])
        if values["bytes"] != _length(values):
            raise ValueError(f"bytes is {values['bytes']}, not {_length(values)}")
        del values["bytes"]
        arrays = safetensors.numpy.load(values.pop("tensors"))
        if "classifier_weight" in arrays:
            raise ValueError("tensors classifier_weight are unknown")
        arrays["classifier_weight"] = unpack_classifier(values.pop("classifier"))
        head = {k[5:]: arrays.pop(k) for k in list(arrays) if k.startswith("head.")}
        if not all(np.isfinite(array).all() for array in (*arrays.values(), *head.values())):
            raise ModelError(f"{place}: has NaN or infinite numbers; train the scene anew")
        _check_shapes(dict(arrays))
        _check_ranges(values, arrays)
        held_out, intrinsics = values.pop("held_out"), values.pop("intrinsics")
        provenance = json.loads(values.pop("provenance"))
        if not isinstance(provenance, dict):
            raise ValueError("provenance is no JSON object")
        return SceneRow(
            **values,
            provenance=provenance,
            **arrays,
            id=scene_id,
            head_tensors=head,
            held_out=None if held_out is None else _held_out(json.loads(held_out)),
            intrinsics=None if intrinsics is None else _intrinsics(json.loads(intrinsics)),
        )
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{place}: not a scene of this version ({error})") from error


def unpack_classifier(content: bytes) -> npt.NDArray[np.float32]:
    """(F,) weights of the ``classifier`` column.

    Raises:
        ValueError: not a whole number of float32.
    """
    return np.frombuffer(content, CLASSIFIER_TYPE).astype(np.float32)


_TYPES: dict[str, type] = {"TEXT": str, "REAL": float, "INTEGER": int, "BLOB": bytes}


def check_index_columns(columns: Sequence[Sequence[Any]]) -> None:
    """Types and ranges of the INDEX_COLUMNS of any number of rows, column by column.

    Raises:
        ValueError: what no training writes; it would be served silently wrong.
    """
    values = dict(zip(INDEX_COLUMNS, columns, strict=True))
    _check_types(values, INDEX_COLUMNS)
    for name in ("uuid", "name", "frame_id", "map_frame"):
        for text in values[name]:
            if text is not None and not _NAME.fullmatch(text):
                raise ValueError(f"{name} is {text!r:.40}, not 1 to 200 printable characters")
    _check_range("acceptance_threshold", values, 0, 1)
    _check_range("frames", values, 1, math.inf)
    _check_range("metres_per_unit", values, math.ulp(0.0), math.inf)
    if any(len(content) % 4 for content in values["classifier"]):
        raise ValueError("classifier is no whole number of float32")
    for start in range(0, len(values["classifier"]), CLASSIFIER_CHUNK):
        content = b"".join(values["classifier"][start : start + CLASSIFIER_CHUNK])
        if not np.isfinite(np.frombuffer(content, CLASSIFIER_TYPE)).all():
            raise ValueError("classifier has NaN or infinite numbers")


def _check_range(name: str, values: dict[str, Sequence[Any]], low: float, high: float) -> None:
    present = [value for value in values[name] if value is not None]
    if present and not low <= min(present) <= max(present) <= high:
        raise ValueError(f"{name} is {min(present)} or {max(present)}, not {low} to {high}")


def _check_types(values: dict[str, Sequence[Any]], declared: dict[str, str]) -> None:
    """SQLite stores any type in any column: hold each against its declaration."""
    for name, declaration in declared.items():
        kind = _TYPES[declaration.partition(" ")[0]]
        allowed = {kind} if "NOT NULL" in declaration else {kind, type(None)}
        if not allowed.issuperset(map(type, values[name])):
            wrong = next(value for value in values[name] if type(value) not in allowed)
            raise ValueError(f"{name} is {wrong!r:.40}, not {declaration.split()[0]}")
        if kind is float and not all(math.isfinite(v) for v in values[name] if v is not None):
            raise ValueError(f"{name} is not finite")


def _check_shapes(arrays: dict[str, npt.NDArray[Any]]) -> None:
    sizes = {"position_offset": 3, "reference_rotation": 4, "box_low": 3, "box_high": 3}
    if "map_from_scene" in arrays:
        sizes["map_from_scene"] = 8
    feature_size = arrays["classifier_weight"].size
    sizes |= dict.fromkeys(("classifier_weight", "feature_mean", "feature_std"), feature_size)
    axes = arrays.pop("feature_axes", None)
    if axes is not None:
        count = len(arrays.get("feature_axes_scale", ()))
        if axes.dtype != np.int8 or axes.shape != (count, feature_size):
            raise ValueError(f"feature_axes are {axes.dtype} {axes.shape} with {count} scales")
        sizes["feature_axes_scale"] = count
    if unknown := arrays.keys() - sizes.keys():
        raise ValueError(f"tensors {', '.join(sorted(unknown))} are unknown")
    for name, size in sizes.items():
        if arrays[name].shape != (size,):
            raise ValueError(f"{name} has shape {arrays[name].shape}, not ({size},)")
    for name, part in (("reference_rotation", slice(4)), ("map_from_scene", slice(3, 7))):
        if name in arrays and abs(float(np.linalg.norm(arrays[name][part])) - 1) > 1e-3:
            raise ValueError(f"{name} has no unit quaternion")


def _check_ranges(values: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> None:
    """What no training writes, but would give poses that are silently wrong."""
    if values["position_scale"] <= 0:
        raise ValueError(f"position_scale is {values['position_scale']}, not above 0")
    if (arrays["box_high"] < arrays["box_low"]).any():
        raise ValueError("box_high is below box_low")
    if (arrays["feature_std"] < 0).any():
        raise ValueError("feature_std is below 0")
    if ("map_from_scene" in arrays) != (values["map_frame"] is not None):
        raise ValueError("map_frame and map_from_scene must be there together, or neither")
    if "map_from_scene" in arrays and arrays["map_from_scene"][7] <= 0:
        raise ValueError(f"map_from_scene scales by {arrays['map_from_scene'][7]}, not above 0")


def _held_out(fields: dict[str, Any]) -> HeldOutErrors:
    position = tuple(fields.pop("position_variance"))
    rotation = tuple(fields.pop("rotation_variance"))
    # Absent in rows of heads, and of versions, that had none.
    own = fields.pop("own_factors", None)
    factors = None if own is None else (float(own[0]), float(own[1]))
    position_products = _three(fields.pop("position_products", (0.0, 0.0, 0.0)))
    rotation_products = _three(fields.pop("rotation_products", (0.0, 0.0, 0.0)))
    usual = fields.pop("familiarity", None)
    held_out = HeldOutErrors(
        **fields,
        position_variance=position,
        rotation_variance=rotation,
        own_factors=factors,
        position_products=position_products,
        rotation_products=rotation_products,
        familiarity=None if usual is None else _familiarity(**usual),
    )
    variances = (*position, *rotation, *(factors or ()))
    if len(variances) != 6 + 2 * (factors is not None) or not all(
        math.isfinite(v) and v > 0 for v in variances
    ):
        raise ValueError("held_out has variances that are missing or not positive")
    covariance = held_out.covariance
    # Of correlations, whatever the units are.
    scale = np.sqrt(np.diag(covariance))
    if not np.linalg.eigvalsh(covariance / np.outer(scale, scale)).min() > 0:
        raise ValueError("held_out has a covariance that is not positive definite")
    return held_out


def _three(values: Sequence[Any]) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    if not all(map(math.isfinite, (x, y, z))):
        raise ValueError("held_out has products that are not finite")
    return x, y, z


def _familiarity(middle: Sequence[Any], spread: Sequence[Any]) -> Familiarity:
    usual = Familiarity(tuple(map(float, middle)), tuple(map(float, spread)))
    if not (len(usual.middle) == len(usual.spread) and len(usual.middle) in (2, 3)):
        raise ValueError("held_out has no familiarity of two or three signs")
    if not all(map(math.isfinite, (*usual.middle, *usual.spread))) or min(usual.spread) <= 0:
        raise ValueError("held_out has a familiarity that is not finite or without spread")
    return usual


def _intrinsics(fields: dict[str, Any]) -> Intrinsics:
    return Intrinsics(**fields | {"distortion": tuple(fields["distortion"])})
