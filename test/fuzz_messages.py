# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Messages that no camera would send, each made anew from a seed and its number.

Serialized by hand (CDR, little endian), since rclpy would refuse to serialize most of them.
"""

import io
import random
import struct
import zlib
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image as PilImage
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo

from mspn_ros.datasets.bags import BagReader
from mspn_ros.demo import BAG
from mspn_ros.images import RAW_ENCODINGS

RAW, COMPRESSED = "raw", "compressed"
# What becomes of a message: it must get an answer from the network, must be rejected, or either.
ANSWER, REJECT, EITHER = "answer", "reject", "either"

DEPTH_ENCODINGS = ("16UC1", "32FC1", "64FC1", "16SC1", "32SC1")
# Which this package does not read; cv_bridge may.
OTHER_ENCODINGS = (*DEPTH_ENCODINGS, "8SC1", "8UC2", "16UC3", "32FC3", "rgba16", "bgra16", "nv21")
OTHER_ENCODINGS += ("bayer_rggb16", "bayer_grbg16", "nv24", "yuv444", "RGB8", "rgb8 ", "", "jpeg")
LIES = (
    0,
    1,
    2,
    3,
    31,
    239,
    241,
    319,
    321,
    640,
    4096,
    65535,
    2**16,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
)
STAMPS = (
    (0, 0),
    (-1, 0),
    (-(2**31), 0),
    (2**31 - 1, 2**32 - 1),
    (0, 2**32 - 1),
    (1_700_000_000, 10**9),
)
STAMPS += ((1_700_000_000, 2**32 - 5), (-5, 999_999_999), (0, 1), (2**31 - 1, 999_999_999))
STRINGS = (
    b"",
    b"\0",
    b"a\0b",
    b"\xff\xfe\xfd",
    b"caf\xe9",
    b"\xed\xa0\x80",
    b"{}\"'\\",
    b"%s%n\n\r\x1b[2J",
)
STRINGS += (b"/" * 300, "Präfix/ö".encode(), b"x" * 100_000)
FOREIGN = ("GIF", "TIFF", "ICO", "JPEG2000", "EPS", "PDF", "TGA", "PCX", "SGI", "DIB")


@dataclass(frozen=True)
class Case:
    """One message. ``source``: of which picture it is made, None where that says nothing."""

    kind: str
    cdr: bytes
    expect: str
    source: int | None


def text(value: bytes) -> bytes:
    """A CDR string whose end is aligned, if its beginning is."""
    return struct.pack("<I", len(value) + 1) + value + b"\0" + bytes(-(len(value) + 1) % 4)


def header(stamp: tuple[int, int], frame_id: bytes = b"camera") -> bytes:
    return b"\0\1\0\0" + struct.pack("<iI", *stamp) + text(frame_id)


def image(stamp, height, width, encoding, step, data, big=0, frame_id=b"camera") -> bytes:
    """A serialized sensor_msgs/Image."""
    encoding = encoding if isinstance(encoding, bytes) else encoding.encode()
    name = struct.pack("<I", len(encoding) + 1) + encoding + b"\0" + bytes((big,))
    sides = struct.pack("<II", height, width)
    tail = bytes(-len(name) % 4) + struct.pack("<II", step, len(data))
    return header(stamp, frame_id) + sides + name + tail + data


def compressed(stamp, data, form=b"jpeg", frame_id=b"camera") -> bytes:
    """A serialized sensor_msgs/CompressedImage."""
    return header(stamp, frame_id) + text(form) + struct.pack("<I", len(data)) + data


class Pictures:
    """Frames of the demo's bag, and what they are encoded to."""

    def __init__(self, count: int = 12) -> None:
        with BagReader(BAG) as bag:
            frames = [frame.decode() for frame in bag.images()]
        self.rgb = frames[:: len(frames) // count][:count]
        self._encoded: dict[tuple, bytes] = {}

    def encoded(self, number: int, form: str, mode: str = "RGB", **options) -> bytes:
        key = (number, form, mode, *sorted(options.items()))
        if key not in self._encoded:
            buffer = io.BytesIO()
            PilImage.fromarray(self.rgb[number]).convert(mode).save(buffer, form, **options)
            self._encoded[key] = buffer.getvalue()
        return self._encoded[key]


class Maker:
    """``make`` gives message ``index`` of a seed: the same whenever it is asked for."""

    def __init__(self, seed: int) -> None:
        self.seed, self.pictures = seed, Pictures()
        self._raw = [
            (4, self._control),
            (28, self._bytes),
            (20, self._lies),
            (16, self._encodings),
            (16, self._destroyed),
            (8, self._strings),
            (8, self._stamps),
        ]
        self._compressed = [
            (4, self._control), (18, self._bytes), (28, self._file), (8, self._foreign),
            (12, self._exotic), (6, self._claims), (0.1, self._bombs), (6, self._exif),
            (12, self._destroyed), (4, self._strings), (4, self._stamps),
        ]  # fmt: skip

    def make(self, index: int, transport: str, stamp: tuple[int, int]) -> Case:
        """``stamp``: (sec, nanosec) of those whose kind does not set it."""
        rng = random.Random(f"{self.seed} {index} {transport}")
        weights, makers = zip(*(self._raw if transport == RAW else self._compressed), strict=True)
        [maker] = rng.choices(makers, weights)
        return maker(rng, transport, stamp)

    def control(self, source: int, transport: str, stamp: tuple[int, int]) -> Case:
        """An undamaged picture."""
        if transport == RAW:
            cdr = raw_of(self.pictures.rgb[source], "bgr8", stamp)
        else:
            cdr = compressed(stamp, self.pictures.encoded(source, "JPEG", quality=95))
        return Case("control", cdr, ANSWER, source)

    def _source(self, rng: random.Random) -> int:
        return rng.randrange(len(self.pictures.rgb))

    def _control(self, rng, transport, stamp):
        return self.control(self._source(rng), transport, stamp)

    def _bytes(self, rng, transport, stamp):
        case = self._control(rng, transport, stamp)
        where = rng.choice((4, 12, 24, 64, 64, len(case.cdr)))
        cdr = damaged(rng, case.cdr, where)
        # DDS delivers no message of no bytes.
        return Case("bytes", cdr if len(cdr) >= 4 else case.cdr[:4], EITHER, case.source)

    def _stamps(self, rng, transport, stamp):
        odd = rng.choice(STAMPS)
        if rng.random() < 0.3:
            odd = rng.randrange(-(2**31), 2**31), rng.randrange(2**32)
        case = self._control(rng, transport, odd)
        # May come before the one that has just been sent.
        return Case("stamps", case.cdr, EITHER, case.source)

    def _strings(self, rng, transport, stamp):
        source, odd = self._source(rng), rng.choice(STRINGS)
        if transport == RAW:
            name = rng.choice(("frame_id", "encoding"))
            encoding = odd if name == "encoding" else b"rgb8"
            frame_id = odd if name == "frame_id" else b"camera"
            # To ROS a string ends with its first NUL.
            readable = encoding.partition(b"\0")[0] in [e.encode() for e in RAW_ENCODINGS]
            pixels = self.pictures.rgb[source]
            cdr = image(stamp, *pixels.shape[:2], encoding, 960, pixels.tobytes(), 0, frame_id)
            return Case(f"strings {name}", cdr, ANSWER if readable else REJECT, source)
        frame_id, form = rng.sample((odd, b"jpeg"), 2)
        data = self.pictures.encoded(source, "JPEG", quality=95)
        return Case("strings", compressed(stamp, data, form, frame_id), ANSWER, source)

    # Raw images.

    def _lies(self, rng, transport, stamp):
        source = self._source(rng)
        pixels = self.pictures.rgb[source]
        fields = {"height": 240, "width": 320, "step": 960, "size": 230_400}
        for name in rng.sample(list(fields), rng.randint(1, 3)):
            fields[name] = rng.choice((rng.choice(LIES), fields[name] + rng.choice((-1, 1, 64))))
        data = pixels.tobytes()
        data = (data + data)[: fields["size"]] if fields["size"] < 2 * len(data) else data
        encoding = rng.choice((*RAW_ENCODINGS, *OTHER_ENCODINGS))
        if rng.random() < 0.5:
            encoding = "rgb8"
        sides = fields["height"], fields["width"]
        cdr = image(stamp, *sides, encoding, fields["step"], data, rng.choice((0, 0, 1, 255)))
        if rng.random() < 0.3:
            # The length of the data, or of the encoding's name, lies as well.
            place = len(cdr) - len(data) - 4 if rng.random() < 0.7 else 32
            lie = struct.pack("<I", rng.choice(LIES))
            cdr = cdr[:place] + lie + cdr[place + 4 :]
            return Case("lies in CDR", cdr, EITHER, source)
        return Case("lies", cdr, EITHER, source if encoding == "rgb8" else None)

    def _encodings(self, rng, transport, stamp):
        encoding = rng.choice((*RAW_ENCODINGS, *OTHER_ENCODINGS))
        height, width = rng.choice(((240, 320), (1, 1), (3, 2), (33, 1), (7, 200), (480, 640)))
        size = height * width * rng.choice((1, 2, 3, 4, 6, 8))
        size += rng.choice((0, 0, 0, -1, 1))
        step = rng.choice((size // height, width, 2 * width, 3 * width, 8 * width + 5))
        data = rng.randbytes(max(0, min(size, 2**20)))
        cdr = image(stamp, height, width, encoding, step, data, rng.choice((0, 1)))
        expect = REJECT if encoding in DEPTH_ENCODINGS else EITHER
        return Case("encodings", cdr, expect, None)

    # Compressed images.

    def _file(self, rng, transport, stamp):
        source = self._source(rng)
        form, options = rng.choice(
            (
                ("JPEG", {"quality": 80}),
                ("JPEG", {"quality": 80}),
                ("JPEG", {"quality": 80, "progressive": True}),
                ("PNG", {}),
                ("WEBP", {"quality": 80}),
                ("BMP", {}),
                ("PPM", {}),
            )
        )
        whole = self.pictures.encoded(source, form, **options)
        if rng.random() < 0.2 and form != "WEBP":
            # Not the last bytes: what ends there may be whole.
            keep = rng.randrange(int(0.95 * len(whole)))
            case = Case(f"cut {form}", compressed(stamp, whole[:keep]), REJECT, source)
        else:
            where = rng.choice((30, 200, 700, len(whole), len(whole), len(whole)))
            data = damaged(rng, whole, where)
            case = Case(f"damaged {form}", compressed(stamp, data), EITHER, source)
        return case

    def _foreign(self, rng, transport, stamp):
        source, form = self._source(rng), rng.choice((*FOREIGN, "depth", "text", "none", "random"))
        if form == "depth":
            # compressed_depth_image_transport: a header of its own, then a PNG.
            depth = cv2.imencode(".png", np.zeros((240, 320), np.uint16))[1].tobytes()
            cdr = compressed(stamp, struct.pack("<Iff", 0, 0, 0) + depth, b"16UC1; compressedDepth")
            return Case("foreign", cdr, REJECT, None)
        if form in FOREIGN:
            data = self.pictures.encoded(source, form)
        else:
            odd = {"text": b"<svg/>" * 50, "none": b"", "random": rng.randbytes(4000)}
            data = odd[form]
        label = rng.choice((form.lower().encode(), b"jpeg", b"png", b""))
        return Case("foreign", compressed(stamp, data, label), REJECT, source)

    def _exotic(self, rng, transport, stamp):
        source = self._source(rng)
        kind = rng.randrange(8)
        if kind == 0:
            tall = self.pictures.rgb[source][..., ::-1].astype(np.uint16) * 257
            data = cv2.imencode(".png", tall[..., 0] if rng.random() < 0.5 else tall)[1].tobytes()
        else:
            form, mode, options = (
                ("JPEG", "CMYK", {}),
                ("JPEG", "L", {}),
                ("PNG", "RGBA", {}),
                ("PNG", "P", {}),
                ("PNG", "1", {}),
                ("PNG", "LA", {}),
                ("WEBP", "RGBA", {"lossless": True, "method": 0}),
            )[kind - 1]
            data = self.pictures.encoded(source, form, mode, **options)
        label = rng.choice((b"jpeg", b"png", b"bgr8; jpeg compressed bgr8", b"nonsense"))
        return Case("exotic", compressed(stamp, data, label), ANSWER, None)

    def _claims(self, rng, transport, stamp):
        """Small files that claim to be of an absurd size."""
        sides = rng.choice(
            ((60_000, 60_000), (65_500, 65_500), (50_000, 100), (9000, 9000), (0, 5))
        )
        form = rng.choice(("PNG", "JPEG", "BMP", "PPM"))
        if form == "PNG":
            data = png_of_size(*sides, zlib.compress(bytes(1000)))
        elif form == "PPM":
            data = b"P6 %d %d 255\n" % sides + bytes(1000)
        else:
            whole = bytearray(self.pictures.encoded(0, form, quality=80))
            if form == "JPEG":
                frame = whole.index(b"\xff\xc0")
                whole[frame + 5 : frame + 9] = struct.pack(">HH", sides[1], sides[0])
            else:
                whole[18:26] = struct.pack("<ii", sides[0], rng.choice((1, -1)) * sides[1])
            data = bytes(whole)
        return Case("claims", compressed(stamp, data), REJECT, None)

    def _bombs(self, rng, transport, stamp):
        """Files that are really so large, or take long."""
        kind = rng.choice(("pixels", "scans", "text", "profile"))
        if kind == "pixels":
            rows = b"\0" * (7900 * 3 + 1) * 79
            deflate = zlib.compressobj(9)
            data = b"".join(deflate.compress(rows) for _ in range(100)) + deflate.flush()
            return Case(
                "bomb pixels", compressed(stamp, png_of_size(7900, 7900, data)), ANSWER, None
            )
        if kind == "scans":
            return Case("bomb scans", compressed(stamp, many_scans(4000, 3000)), REJECT, None)
        if kind == "text":
            packed = b"key\0\0" + zlib.compress(bytes(50_000_000))
            png = insert_chunk(self.pictures.encoded(0, "PNG"), b"zTXt", packed)
        else:
            packed = b"name\0\0" + zlib.compress(bytes(50_000_000))
            png = insert_chunk(self.pictures.encoded(0, "PNG"), b"iCCP", packed)
        return Case(f"bomb {kind}", compressed(stamp, png), EITHER, None)

    def _exif(self, rng, transport, stamp):
        source = self._source(rng)
        exif = PilImage.Exif()
        exif[0x0112] = rng.randrange(1, 9)
        exif[0x010E] = "d" * rng.randrange(200)
        block = bytearray(exif.tobytes())
        for _ in range(rng.randrange(6)):
            block[rng.randrange(len(block))] = rng.randrange(256)
        segments = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + bytes(block)
        for _ in range(rng.randrange(3)):
            junk = rng.randbytes(rng.randrange(2000))
            marker = bytes((0xFF, rng.choice((0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE))))
            segments += marker + struct.pack(">H", len(junk) + 2) + junk
        whole = self.pictures.encoded(source, "JPEG", quality=95)
        return Case("exif", compressed(stamp, whole[:2] + segments + whole[2:]), EITHER, source)

    # Both.

    def _destroyed(self, rng, transport, stamp):
        """A valid message of a picture that is not, or hardly, one of a room."""
        source = self._source(rng)
        kind = rng.choice(tuple(DESTROY))
        pixels = DESTROY[kind](
            np.random.default_rng(rng.randrange(2**32)), self.pictures.rgb[source]
        )
        if transport == RAW:
            return Case(f"pixels {kind}", raw_of(pixels, "rgb8", stamp), ANSWER, source)
        data = cv2.imencode(".jpg", pixels[..., ::-1])[1].tobytes()
        return Case(f"pixels {kind}", compressed(stamp, data), ANSWER, source)


def raw_of(pixels, encoding, stamp) -> bytes:
    """(H, W, 3) RGB -> a serialized Image."""
    pixels = pixels if encoding == "rgb8" else pixels[..., ::-1]
    height, width = pixels.shape[:2]
    return image(stamp, height, width, encoding, 3 * width, np.ascontiguousarray(pixels).tobytes())


def damaged(rng: random.Random, whole: bytes, where: int) -> bytes:
    """Some bytes of the first ``where`` flipped, taken out, put in, or everything cut off."""
    content = bytearray(whole)
    for _ in range(rng.choice((1, 1, 2, 3, 10))):
        place = rng.randrange(max(1, min(where, len(content))))
        kind = rng.randrange(7)
        length = rng.choice((1, 1, 2, 4, 30, 1000))
        if kind <= 2 and content:
            content[place % len(content)] = rng.choice((0, 1, 127, 255, rng.randrange(256)))
        elif kind == 3:
            del content[place : place + length]
        elif kind == 4:
            content[place:place] = rng.randbytes(length)
        elif kind == 5:
            content[place : place + length] = bytes(length)
        elif rng.random() < 0.3:
            del content[place:]
    return bytes(content)


def png_of_size(width: int, height: int, data: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", data), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def insert_chunk(png: bytes, kind: bytes, data: bytes) -> bytes:
    """After the header."""
    return png[:33] + chunk(kind, data) + png[33:]


def many_scans(width: int, height: int, scans: int = 400) -> bytes:
    """A progressive JPEG of a few kilobytes each of whose scans goes through all its pixels."""
    buffer = io.BytesIO()
    PilImage.new("L", (width, height)).save(buffer, "JPEG", progressive=True)
    whole = buffer.getvalue()
    last = whole.rindex(b"\xff\xda")
    return whole[:-2] + whole[last:-2] * scans + whole[-2:]


def _blocks(rng, pixels):
    rows = [pixels[y : y + 40, x : x + 40] for y in range(0, 240, 40) for x in range(0, 320, 40)]
    shuffled = [rows[i] for i in rng.permutation(len(rows))]
    return np.concatenate([np.concatenate(shuffled[i : i + 8], 1) for i in range(0, 48, 8)])


def _salted(rng, pixels, share):
    hit = rng.random(pixels.shape[:2]) < share
    return np.where(hit[..., None], rng.integers(0, 256, pixels.shape, np.uint8), pixels)


def _greyed(rng, pixels, share):
    pixels = pixels.copy()
    pixels[round((1 - share) * len(pixels)) :] = 128
    return pixels


def _even(rng, pixels):
    return np.broadcast_to(rng.integers(0, 256, 3, np.uint8), pixels.shape)


def _clouds(rng, pixels):
    coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(coarse, (320, 240), interpolation=cv2.INTER_CUBIC)


DESTROY = {
    "noise": lambda rng, pixels: rng.integers(0, 256, pixels.shape, np.uint8),
    "even": _even,
    "clouds": _clouds,
    "shuffled blocks": _blocks,
    "30 % noise": lambda rng, pixels: _salted(rng, pixels, 0.3),
    "80 % noise": lambda rng, pixels: _salted(rng, pixels, 0.8),
    "30 % grey": lambda rng, pixels: _greyed(rng, pixels, 0.3),
    "80 % grey": lambda rng, pixels: _greyed(rng, pixels, 0.8),
    "sheared": lambda rng, pixels: pixels.reshape(-1)[: 240 * 317 * 3].reshape(240, 317, 3),
    "nearly black": lambda rng, pixels: pixels // 32,
}


def camera_info(rng: random.Random, stamp: tuple[int, int]) -> bytes:
    """A CameraInfo, serialized, whose numbers or bytes are wrong, or none."""
    message = good_camera_info(stamp)
    numbers = (0.0, -1.0, 1e-300, 1e300, float("nan"), float("inf"), 1e9, 0.5, 1e-3)
    for _ in range(rng.choice((0, 1, 2, 6))):
        name = rng.choice(("k", "p", "d", "d", "width", "height", "model", "binning", "roi"))
        if name in "kp":
            values = list(getattr(message, name))
            values[rng.randrange(len(values))] = rng.choice(numbers)
            setattr(message, name, values)
        elif name == "d":
            scale = rng.choice((0.1, 1.0, 100.0))
            terms = [rng.gauss(0, scale) for _ in range(rng.choice((0, 1, 5, 8, 14, 500)))]
            message.d = [rng.choice(numbers) if rng.random() < 0.2 else t for t in terms]
        elif name == "model":
            names = ("", "plumb_bob", "rational_polynomial", "equidistant", "x" * 10_000)
            message.distortion_model = rng.choice(names)
        elif name == "binning":
            message.binning_x = rng.choice(LIES)
        elif name == "roi":
            roi = message.roi
            roi.width, roi.height, roi.x_offset, roi.y_offset = rng.choices(LIES, k=4)
        else:
            setattr(message, name, rng.choice(LIES))
    cdr = serialize_message(message)
    return damaged(rng, cdr, len(cdr)) if rng.random() < 0.3 else cdr


def good_camera_info(stamp: tuple[int, int]) -> CameraInfo:
    """Of the pictures' camera."""
    message = CameraInfo(height=240, width=320, distortion_model="plumb_bob")
    message.header.stamp.sec, message.header.stamp.nanosec = stamp
    message.k = [262.5, 0.0, 159.5, 0.0, 262.5, 119.5, 0.0, 0.0, 1.0]
    message.p = [262.5, 0.0, 159.5, 0.0, 0.0, 262.5, 119.5, 0.0, 0.0, 0.0, 1.0, 0.0]
    return message
