# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Decoding of every encoding, and refusal of every bad image."""

import array
import io
import struct
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from mspn_ros import images
from mspn_ros.images import (
    RAW_ENCODINGS,
    decode_compressed,
    decode_raw,
    image_size,
    read_image,
)
from mspn_ros.records import ImageError
from mspn_ros.view import View

RGB = np.random.default_rng(0).integers(0, 256, (6, 10, 3), np.uint8)
ALPHA = np.full((6, 10, 1), 7, np.uint8)
GREY = RGB[..., :1]
RED, GREEN, BLUE = 200, 100, 30


def bayer(pattern, height=8, width=12):
    """The mosaic that a camera sees of an even colour; ``pattern`` is the first 2 x 2 by rows."""
    value = {"r": RED, "g": GREEN, "b": BLUE}
    cell = [[value[pattern[2 * y + x]] for x in (0, 1)] for y in (0, 1)]
    return np.tile(np.array(cell, np.uint8), (height // 2, width // 2))


# encoding -> (samples as the camera sends them, the RGB they mean)
EXACT = {
    "rgb8": (RGB, RGB),
    "bgr8": (RGB[..., ::-1], RGB),
    "8UC3": (RGB[..., ::-1], RGB),
    "rgba8": (np.concatenate((RGB, ALPHA), 2), RGB),
    "bgra8": (np.concatenate((RGB[..., ::-1], ALPHA), 2), RGB),
    "8UC4": (np.concatenate((RGB[..., ::-1], ALPHA), 2), RGB),
    "mono8": (GREY, np.repeat(GREY, 3, 2)),
    "8UC1": (GREY, np.repeat(GREY, 3, 2)),
    # 257 x maps 0..255 on the full 16-bit range.
    "mono16": (GREY.astype(np.uint16) * 257, np.repeat(GREY, 3, 2)),
    "rgb16": (RGB.astype(np.uint16) * 257, RGB),
    "bgr16": (RGB[..., ::-1].astype(np.uint16) * 257, RGB),
} | {
    f"bayer_{pattern}8": (bayer(pattern), np.tile(np.uint8([RED, GREEN, BLUE]), (8, 12, 1)))
    for pattern in ("rggb", "bggr", "gbrg", "grbg")
}
# Order of the four bytes of two neighbouring pixels.
YUV = {"yuv422": "uyvy", "uyvy": "uyvy", "yuv422_yuy2": "yuyv", "yuyv": "yuyv"}


def encoded(fmt, picture=RGB, **options):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, fmt, **options)
    return buffer.getvalue()


def rows_of(samples, big_endian=False):
    order = ">" if big_endian else "<"
    samples = samples.astype(samples.dtype.newbyteorder(order))
    return np.frombuffer(samples.tobytes(), np.uint8).reshape(len(samples), -1)


def test_every_supported_encoding_is_tested_here():
    assert set(EXACT) | set(YUV) == set(RAW_ENCODINGS)


@pytest.mark.parametrize("encoding", EXACT)
@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("big_endian", [False, True])
def test_raw_pixels_are_decoded(encoding, padding, big_endian):
    samples, expected = EXACT[encoding]
    rows = rows_of(samples, big_endian)
    step = rows.shape[1] + padding
    padded = np.full((len(rows), step), 99, np.uint8)
    padded[:, : rows.shape[1]] = rows
    data = array.array("B", padded.tobytes())
    image = decode_raw(data, *expected.shape[:2], encoding, step, big_endian)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image, expected)
    if padding:  # some drivers send the last row without its padding
        image = decode_raw(data[:-padding], *expected.shape[:2], encoding, step, big_endian)
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("encoding", YUV)
def test_yuv_is_decoded_by_bt601(encoding):
    pairs = np.random.default_rng(2).integers(60, 190, (4, 3, 4))  # y0, u, y1, v of two pixels
    source = dict(zip(["y0", "u", "y1", "v"], np.moveaxis(pairs, 2, 0), strict=True))
    order = {"uyvy": ("u", "y0", "v", "y1"), "yuyv": ("y0", "u", "y1", "v")}[YUV[encoding]]
    data = np.stack([source[name] for name in order], 2).astype(np.uint8).reshape(4, 12)
    luma = 1.164 * (np.stack((source["y0"], source["y1"]), 2).reshape(4, 6) - 16.0)
    u = np.repeat(source["u"] - 128.0, 2, 1)
    v = np.repeat(source["v"] - 128.0, 2, 1)
    expected = np.stack((luma + 1.596 * v, luma - 0.391 * u - 0.813 * v, luma + 2.018 * u), 2).clip(
        0, 255
    )
    image = decode_raw(data.tobytes(), 4, 6, encoding, 12)
    assert np.abs(image - expected).max() <= 1.5


def test_tight_rgb8_is_a_view_of_the_message():
    data = array.array("B", RGB.tobytes())
    image = decode_raw(data, 6, 10, "rgb8", 30)
    assert np.shares_memory(image, np.frombuffer(data, np.uint8))
    # Bytes that may not be written to, and rows with padding between, have to be copied.
    fixed, padded = bytes(data), array.array("B", bytes(6 * 32))
    for source, step in ((fixed, 30), (padded, 32)):
        image = decode_raw(source, 6, 10, "rgb8", step)
        assert not np.shares_memory(image, np.frombuffer(source, np.uint8))


def test_16_bit_is_scaled_over_the_full_range():
    values = np.array([[0, 128, 129, 32768, 65407, 65535]], np.uint16)
    image = decode_raw(values.tobytes(), 1, 6, "mono16", 12)
    assert image[0, :, 0].tolist() == [0, 0, 1, 128, 255, 255]


def test_decoding_of_immutable_bytes_can_be_prepared_without_a_warning():
    # torch warns when it shares memory with read-only bytes, which is what a bag gives.
    image = decode_raw(RGB.tobytes(), 6, 10, "rgb8", 30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        View(4, 4).prepared(image, torch.device("cpu"))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"encoding": "16UC1"}, "'16UC1' is not supported.*rgb8"),
        ({"encoding": ""}, "'' is not supported"),
        ({"height": 0}, "10x0 pixels is empty"),
        ({"width": 0}, "0x6 pixels is empty"),
        ({"height": 100_000, "width": 100_000}, "over the limit of 64000000 pixels"),
        ({"height": 1, "width": 60_000_000}, "narrower than 1:32"),
        ({"step": 29}, r"step 29 is shorter than a row of 10 rgb8 pixels \(30 bytes\)"),
        ({"step": 0}, "step 0 is shorter"),
        ({"step": 31}, "180 bytes of data where"),
        ({"data": b""}, "0 bytes of data"),
        ({"data": RGB.tobytes()[:-1]}, "179 bytes of data.*needs 180"),
        ({"data": RGB.tobytes() + b"x"}, "181 bytes of data.*needs 180"),
        ({"encoding": "yuyv", "width": 9, "step": 30}, "odd width 9"),
    ],
)
def test_bad_raw_image_is_refused(change, match):
    fields = {"data": RGB.tobytes(), "height": 6, "width": 10, "encoding": "rgb8", "step": 30}
    with pytest.raises(ImageError, match=match) as caught:
        decode_raw(**(fields | change))
    assert "\n" not in str(caught.value)


def test_forged_step_allocates_nothing():
    # One row may be shorter than its step; padding it would take the gigabyte that the step claims.
    tracemalloc.start()
    decode_raw(bytes(30), 1, 10, "rgb8", 2**30)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


# --- JPEG, PNG and others ----------------------------------------------------------------


@pytest.mark.parametrize("fmt", ["PNG", "BMP", "PPM"])
def test_lossless_formats_are_decoded_exactly(fmt):
    np.testing.assert_array_equal(decode_compressed(encoded(fmt)), RGB)


@pytest.mark.parametrize("fmt", ["JPEG", "WEBP"])
def test_lossy_formats_are_decoded_in_rgb_order(fmt):
    even = np.tile(np.uint8([RED, GREEN, BLUE]), (16, 16, 1))
    image = decode_compressed(memoryview(encoded(fmt, even)))
    assert np.abs(image.astype(int) - even).max() <= 4


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("L", (90, 90, 90)), ("RGBA", (RED, GREEN, BLUE)), ("P", (RED, GREEN, BLUE))],
)
def test_other_png_modes_become_rgb(mode, expected):
    colour = {"L": 90, "RGBA": (RED, GREEN, BLUE, 40), "P": 0}[mode]
    picture = Image.new(mode, (4, 3), colour)
    if mode == "P":
        picture.putpalette([RED, GREEN, BLUE])
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    image = decode_compressed(buffer.getvalue())
    np.testing.assert_array_equal(image, np.tile(np.uint8(expected), (3, 4, 1)))


def test_16_bit_png_is_scaled_like_mono16():
    values = GREY[..., 0].astype(np.uint16) * 257
    np.testing.assert_array_equal(decode_compressed(encoded("PNG", values)), np.repeat(GREY, 3, 2))


def test_exif_orientation_is_left_alone():
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees"
    assert decode_compressed(encoded("JPEG", exif=exif)).shape == RGB.shape


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("fmt", ["JPEG", "PNG"])
def test_truncated_image_is_refused(fmt, share):
    # OpenCV would fill the missing part of such a JPEG with grey.
    whole = encoded(fmt, np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    with pytest.raises(ImageError, match="cam is truncated or corrupt"):
        decode_compressed(whole[: int(len(whole) * share)], "cam")


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "cam has no bytes"),
        (b"no image at all", "cam is none of JPEG, PNG"),
        (encoded("GIF"), "cam is none of"),
        (encoded("EPS"), "cam is none of"),  # Pillow would start Ghostscript for it
        (encoded("TIFF"), "cam is none of"),
        (encoded("PNG")[:20], "cam is"),
        (b"\xff\xd8\xff", "cam is"),
    ],
    ids=["empty", "text", "gif", "eps", "tiff", "png header", "jpeg magic"],
)
def test_bad_encoded_image_is_refused(data, match):
    with pytest.raises(ImageError, match=match) as caught:
        decode_compressed(data, "cam")
    assert "\n" not in str(caught.value)


def png_of_size(width, height):
    """A tiny PNG file that claims a size."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(9000, 9000), (60_000, 60_000), (50_000, 100)])
def test_image_that_claims_an_absurd_size_is_refused(width, height, tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of_size(width, height))
    for read in (read_image, image_size):
        with pytest.raises(ImageError, match=r"bomb\.png"):
            read(path)


def test_too_many_encoded_bytes_are_refused(monkeypatch):
    monkeypatch.setattr(images, "MAX_ENCODED_BYTES", 10)
    with pytest.raises(ImageError, match="over the limit of 10"):
        decode_compressed(encoded("PNG"))


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "BMP", "PPM"])
@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes_never_give_anything_but_image_errors(fmt):
    whole = encoded(fmt, np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8))
    rng = np.random.default_rng(3)
    refused = 0
    for _ in range(200):
        broken = bytearray(whole)
        for position in rng.integers(0, min(len(broken), 80), 4):
            broken[position] = rng.integers(0, 256)
        try:
            decode_compressed(broken[: rng.integers(1, len(broken) + 1)])
        except ImageError:
            refused += 1
    assert refused > 0


# --- JPEG decoded to about the needed size -------------------------------------------------


def smooth(height, width, seed=0):
    """A picture without fine detail, (H, W, 3) uint8."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def at_least(height, width):
    return lambda *_: (height, width)


@pytest.mark.parametrize(
    ("size", "least", "expected"),
    [
        ((96, 160), (96, 160), (96, 160)),
        ((96, 160), (49, 80), (96, 160)),  # a half would be too low
        ((96, 160), (48, 81), (96, 160)),  # or too narrow
        ((96, 160), (48, 80), (48, 80)),
        ((96, 160), (24, 40), (24, 40)),
        ((96, 160), (1, 1), (12, 20)),  # an eighth is the least there is
        ((96, 160), (500, 500), (96, 160)),  # nothing is ever enlarged
        ((92, 164), (1, 1), (23, 41)),  # no whole eighth
        ((95, 161), (1, 1), (95, 161)),  # no whole part at all
    ],
)
@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"subsampling": 0}, {"mode": "L"}, {"mode": "CMYK"}],
    ids=str,
)
def test_jpegs_are_scaled_by_whole_parts_to_no_less_than_is_asked(size, least, expected, options):
    options = dict(options)
    buffer = io.BytesIO()
    picture = Image.fromarray(smooth(*size)).convert(options.pop("mode", "RGB"))
    picture.save(buffer, "JPEG", quality=95, **options)
    full = decode_compressed(buffer.getvalue())
    image = decode_compressed(buffer.getvalue(), least=at_least(*least))
    assert (full.shape, image.shape) == ((*size, 3), (*expected, 3))
    assert image.flags.c_contiguous
    assert image.flags.writeable
    # A pixel is the mean of those that it stands for: the same picture, neither cut nor shifted.
    part = size[0] // expected[0]
    means = full.reshape(expected[0], part, expected[1], part, 3).mean((1, 3))
    assert np.abs(image - means).mean() < 1.5


def test_the_needed_size_is_asked_of_the_size_as_sent():
    asked = []
    decode_compressed(encoded("JPEG"), least=lambda *size: asked.append(size) or (1, 1))
    assert asked == [(6, 10)]


@pytest.mark.parametrize("fmt", ["PNG", "WEBP", "BMP", "PPM"])
def test_other_formats_are_not_scaled(fmt):
    data = encoded(fmt, smooth(32, 48))
    np.testing.assert_array_equal(
        decode_compressed(data, least=at_least(1, 1)), decode_compressed(data)
    )


def test_a_16_bit_png_and_a_turned_jpeg_stay_what_they_are_when_scaled():
    values = GREY[..., 0].astype(np.uint16) * 257
    image = decode_compressed(encoded("PNG", values), least=at_least(1, 1))
    np.testing.assert_array_equal(image, np.repeat(GREY, 3, 2))
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees"
    turned = encoded("JPEG", smooth(32, 48), exif=exif)
    assert decode_compressed(turned, least=at_least(16, 24)).shape == (16, 24, 3)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_is_refused_scaled_where_it_is_refused_whole(progressive):
    whole = encoded(
        "JPEG",
        np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8),
        progressive=progressive,
    )
    for length in range(0, len(whole), 97):
        with pytest.raises(ImageError) as full:
            decode_compressed(whole[:length], "cam")
        with pytest.raises(ImageError) as scaled:
            decode_compressed(whole[:length], "cam", at_least(1, 1))
        assert str(scaled.value).partition("(")[0] == str(full.value).partition("(")[0]


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_damaged_jpegs_never_give_anything_but_image_errors_when_scaled(progressive):
    whole = encoded("JPEG", smooth(48, 64), progressive=progressive)
    rng = np.random.default_rng(4)
    outcomes = {"refused": 0, "decoded": 0}
    for _ in range(300):
        broken = bytearray(whole)
        for position in rng.integers(0, len(broken), 3):
            broken[position] = rng.integers(0, 256)
        try:
            image = decode_compressed(broken, least=at_least(16, 16))
        except ImageError:
            outcomes["refused"] += 1
        else:
            # A broken header may claim another size, but no image is smaller than asked for it.
            full = decode_compressed(broken)
            assert (np.array(image.shape) >= np.minimum(full.shape, (16, 16, 3))).all()
            outcomes["decoded"] += 1
    assert min(outcomes.values()) > 0


def test_files_are_read_and_missing_ones_refused(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded("PNG"))
    np.testing.assert_array_equal(read_image(path), RGB)
    assert image_size(path) == (10, 6)
    path.write_bytes(b"")
    for broken in (path, tmp_path / "none.png", tmp_path):
        for read in (read_image, image_size):
            with pytest.raises(ImageError, match=broken.name):
                read(broken)
