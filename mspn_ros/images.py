# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""From encoded or raw bytes to an image: a contiguous (H, W, 3) uint8 RGB array."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from mspn_ros.records import ImageError, ImageHW3

# Bounds for images from strangers: a forged header must not allocate gigabytes.
MAX_PIXELS = 64_000_000
MAX_ENCODED_BYTES = 128_000_000
# A sliver of 1 x 60,000,000 pixels would become terabytes when its shorter side is resized.
MAX_ASPECT = 32

# JPEGs of more scans than this are refused: each goes through all pixels, and a file of kilobytes
# may have thousands. Cameras and encoders make ten or so.
MAX_SCANS = 100
_SCAN = b"\xff\xda"

# Pillow reads the EXIF of a JPEG for its resolution and tells of every damage with its numbers: a
# stranger could fill a log, and what Python remembers of warnings. Nothing here comes of EXIF.
warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin")

# Not all that Pillow knows: it hands EPS files to Ghostscript, for one.
_ENCODED_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM")

# (height, width) of an encoded image -> the least (height, width) that it is needed in.
LeastSize = Callable[[int, int], tuple[int, int]]


def _to_8_bit(image: Any) -> Any:
    """16-bit to 8-bit over the full range, as compiled cv_bridge does (65535 -> 255)."""
    return (image.astype(np.float32) * (255.0 / 65535.0) + 0.5).astype(np.uint8)


def _cv(code: int) -> Callable[[Any], Any]:
    return lambda image: cv2.cvtColor(image, code)


# encoding of sensor_msgs/Image -> (dtype, channels, conversion to RGB). OpenCV names its Bayer
# codes after the second row's second and third pixel, ROS after the first row's: hence the swap.
_RAW_ENCODINGS: dict[str, tuple[str, int, Callable[[Any], Any]]] = {
    "rgb8": ("u1", 3, lambda image: image),
    "8UC3": ("u1", 3, _cv(cv2.COLOR_BGR2RGB)),
    "bgr8": ("u1", 3, _cv(cv2.COLOR_BGR2RGB)),
    "rgba8": ("u1", 4, _cv(cv2.COLOR_RGBA2RGB)),
    "bgra8": ("u1", 4, _cv(cv2.COLOR_BGRA2RGB)),
    "8UC4": ("u1", 4, _cv(cv2.COLOR_BGRA2RGB)),
    "mono8": ("u1", 1, _cv(cv2.COLOR_GRAY2RGB)),
    "8UC1": ("u1", 1, _cv(cv2.COLOR_GRAY2RGB)),
    "mono16": ("u2", 1, lambda image: cv2.cvtColor(_to_8_bit(image), cv2.COLOR_GRAY2RGB)),
    "rgb16": ("u2", 3, _to_8_bit),
    "bgr16": ("u2", 3, lambda image: cv2.cvtColor(_to_8_bit(image), cv2.COLOR_BGR2RGB)),
    "bayer_rggb8": ("u1", 1, _cv(cv2.COLOR_BayerBG2RGB)),
    "bayer_bggr8": ("u1", 1, _cv(cv2.COLOR_BayerRG2RGB)),
    "bayer_gbrg8": ("u1", 1, _cv(cv2.COLOR_BayerGR2RGB)),
    "bayer_grbg8": ("u1", 1, _cv(cv2.COLOR_BayerGB2RGB)),
    "yuv422": ("u1", 2, _cv(cv2.COLOR_YUV2RGB_UYVY)),
    "uyvy": ("u1", 2, _cv(cv2.COLOR_YUV2RGB_UYVY)),
    "yuv422_yuy2": ("u1", 2, _cv(cv2.COLOR_YUV2RGB_YUYV)),
    "yuyv": ("u1", 2, _cv(cv2.COLOR_YUV2RGB_YUYV)),
}

RAW_ENCODINGS = tuple(_RAW_ENCODINGS)


def check_size(height: int, width: int, place: str = "image") -> None:
    """Refuse empty and absurd sizes.

    Raises:
        ImageError: a side is zero, the image has more than MAX_PIXELS pixels, or one side is
            more than MAX_ASPECT times the other.
    """
    if height <= 0 or width <= 0:
        raise ImageError(f"{place} of {width}x{height} pixels is empty; check the camera driver")
    if height * width > MAX_PIXELS:
        raise ImageError(
            f"{place} of {width}x{height} pixels is over the limit of {MAX_PIXELS} pixels; "
            "have the driver publish a smaller one"
        )
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise ImageError(
            f"{place} of {width}x{height} pixels is narrower than 1:{MAX_ASPECT}, no camera's "
            "picture; check its width and height"
        )


def decode_raw(
    data: Any, height: int, width: int, encoding: str, step: int, is_bigendian: bool = False
) -> ImageHW3:
    """Decode the fields of a ``sensor_msgs/Image`` -> (H, W, 3) uint8 RGB.

    ``data`` is any buffer (``array.array``, bytes, ndarray). Row padding (``step`` beyond the
    pixels) is honoured; missing or surplus bytes are refused, since both shear the picture.
    Writable rgb8 without padding is not copied: the image is a view of ``data``.

    Raises:
        ImageError: unknown encoding, wrong step or length, empty or too large.
    """
    if encoding not in _RAW_ENCODINGS:
        raise ImageError(
            f"encoding {encoding!r} is not supported; have the driver publish one of "
            f"{', '.join(RAW_ENCODINGS)}"
        )
    check_size(height, width)
    kind, channels, convert = _RAW_ENCODINGS[encoding]
    dtype = np.dtype(kind).newbyteorder(">" if is_bigendian else "<")
    row_bytes = width * channels * dtype.itemsize
    if step < row_bytes:
        raise ImageError(
            f"step {step} is shorter than a row of {width} {encoding} pixels ({row_bytes} bytes); "
            "the driver fills the message wrongly"
        )
    buffer = np.frombuffer(data, np.uint8)
    # Some drivers leave the last row's padding away; nothing else may be missing.
    if not step * (height - 1) + row_bytes <= buffer.size <= step * height:
        raise ImageError(
            f"{buffer.size} bytes of data where {width}x{height} {encoding} with step {step} "
            f"needs {step * height}; the message is truncated or mislabelled"
        )
    # Strides rather than a reshape: the last row may end before its padding does.
    rows = np.lib.stride_tricks.as_strided(buffer, (height, row_bytes), (step, 1))
    rows = np.ascontiguousarray(rows)
    shape = (height, width) if channels == 1 else (height, width, channels)
    pixels = rows.view(dtype).reshape(shape)
    if ("yuv" in encoding or "uyv" in encoding) and width % 2:
        raise ImageError(f"{encoding} image has odd width {width}; 4:2:2 needs an even one")
    try:
        # Writable, since torch warns of sharing memory with immutable bytes.
        return np.require(convert(pixels), np.uint8, ("C", "W"))
    except cv2.error as error:
        raise ImageError(
            f"{width}x{height} {encoding} image cannot be converted: {error.err}"
        ) from error


def decode_compressed(
    data: Any, place: str = "compressed image", least: LeastSize | None = None
) -> ImageHW3:
    """Decode JPEG, PNG, WebP, BMP or PPM -> (H, W, 3) uint8 RGB.

    Pillow rather than OpenCV, which fills the missing part of a truncated JPEG with grey and
    says nothing; a pose from it would be wrong. EXIF orientation is left alone, as the tools
    that make poses leave it.

    With ``least`` a JPEG is decoded to a half, a quarter or an eighth of its size, as long as it
    stays as large as ``least`` says: quicker, and not the same pixels as a full image resized.

    Raises:
        ImageError: empty, truncated, corrupt, no image, or too large.
    """
    encoded = bytes(data)
    if not encoded:
        raise ImageError(f"{place} has no bytes; check the publisher or the file")
    if len(encoded) > MAX_ENCODED_BYTES:
        raise ImageError(f"{place} has {len(encoded)} bytes, over the limit of {MAX_ENCODED_BYTES}")
    try:
        with Image.open(io.BytesIO(encoded), formats=_ENCODED_FORMATS) as image:
            check_size(image.height, image.width, place)
            if image.format == "JPEG" and encoded.count(_SCAN) > MAX_SCANS:
                raise ImageError(
                    f"{place} is a JPEG of more than {MAX_SCANS} scans, which no camera makes"
                )
            if image.mode in ("I;16", "I;16B", "I"):
                return decode_raw(
                    np.asarray(image).astype("<u2").tobytes(),
                    image.height,
                    image.width,
                    "mono16",
                    2 * image.width,
                )
            if least is not None:
                _scale_down(image, least(image.height, image.width))
            # Here, since an error within NumPy's reading is a warning in old versions of Pillow.
            image.load()
            # Copied, since Pillow gives immutable bytes, of which torch warns.
            return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{place} is none of {', '.join(_ENCODED_FORMATS)}; send one of these"
        ) from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"{place} is truncated or corrupt ({error}); it is left out") from error


def _scale_down(image: Any, least: tuple[int, int]) -> None:
    """Have a JPEG that is not loaded yet decoded by fewer of its frequencies (libjpeg).

    By divisors of both sides only: libjpeg rounds up, and the camera would then see a little more
    than its intrinsics say. Other formats stay as they are.
    """
    for part in (8, 4, 2):
        if image.width % part or image.height % part:
            continue
        width, height = image.width // part, image.height // part
        if height >= least[0] and width >= least[1]:
            image.draft(None, (width, height))
            return


def read_image(path: Path) -> ImageHW3:
    """Read an image file -> (H, W, 3) uint8 RGB.

    Raises:
        ImageError: missing, unreadable, or anything decode_compressed refuses.
    """
    try:
        encoded = path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}); check the dataset") from error
    return decode_compressed(encoded, str(path))


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) from the file's header alone.

    Raises:
        ImageError: missing, empty, too large or no image.
    """
    try:
        with Image.open(path, formats=_ENCODED_FORMATS) as image:
            check_size(image.height, image.width, str(path))
            return image.width, image.height
    except UnidentifiedImageError as error:
        raise ImageError(f"{path}: none of {', '.join(_ENCODED_FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path}: too large ({error}); make a smaller one") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise ImageError(
            f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})"
        ) from error
