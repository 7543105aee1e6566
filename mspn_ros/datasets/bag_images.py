# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What is written of a bag's image."""

from __future__ import annotations

import cv2

from mspn_ros.datasets.bag_messages import COMPRESSED_IMAGE, BagImage, ros2_types
from mspn_ros.records import ImageHW3

# Of raw images. All chroma is kept; what is lost lies far below what resizing for a network loses,
# and PNG takes five to ten times the space.
_JPEG_QUALITY = 95
# What other tools read, too.
_KEPT = ((b"\xff\xd8\xff", ".jpg"), (b"\x89PNG\r\n\x1a\n", ".png"))


def image_file(image: BagImage, pixels: ImageHW3, png: bool) -> tuple[str, bytes]:
    """(suffix, content) of an image's file; ``pixels`` are the image decoded.

    JPEG and PNG stay as they were sent, bit for bit; all else becomes JPEG, or PNG if ``png``.
    """
    if image.msgtype == COMPRESSED_IMAGE:
        data = ros2_types().deserialize_cdr(image.cdr, image.msgtype).data.tobytes()
        for magic, suffix in _KEPT:
            if data.startswith(magic):
                return suffix, data
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    if png:
        return ".png", cv2.imencode(".png", bgr)[1].tobytes()
    how = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    how += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return ".jpg", cv2.imencode(".jpg", bgr, how)[1].tobytes()
