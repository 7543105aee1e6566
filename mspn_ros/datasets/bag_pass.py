# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One recording on its way into a dataset: poses at its images' stamps, frames chosen and written.

Two walks through the bag: one for all but the pixels (bag_scan.py), one for the images that may be
taken. At most one image is in memory.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mspn_ros.datasets.bag_images import image_file
from mspn_ros.datasets.bag_messages import BagImage, camera_at
from mspn_ros.datasets.bag_poses import PoseOptions, PoseSource, pose_source
from mspn_ros.datasets.bag_scan import (
    BagScan,
    choose_pose_topic,
    pose_topic_of,
    scan_bag,
    what_was_recorded,
)
from mspn_ros.datasets.bags import NO_POSE_TOPIC, BagReader
from mspn_ros.datasets.camera_info import CAMERA_INFO, camera_info_topic
from mspn_ros.datasets.frame_choice import (
    ChoiceOptions,
    Jump,
    Quality,
    better,
    find_jumps,
    group_by_motion,
    held_out_blocks,
    judge,
    measure,
)
from mspn_ros.datasets.nerfstudio_writer import WrittenFrame
from mspn_ros.datasets.pass_report import Gap, PassReport
from mspn_ros.geometry import viewing_direction
from mspn_ros.records import (
    BagError,
    ConfigError,
    ImageError,
    ImageHW3,
    Intrinsics,
    Pose,
    listing,
    unit_name,
)

# Images that arrive so much later than poses, or earlier, make one doubt the stamps.
_STRANGE_DELAY_S = 0.5
# The share of a camera's viewing direction along z from which on it is said to look at the ceiling.
_STRAIGHT_UP = 0.8

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class FromBagOptions:
    """What a user says; see ``mspn dataset from-bag --help``."""

    image_topic: str | None = None
    pose_topic: str | None = None
    camera_info_topic: str | None = None
    focal_px: float | None = None
    poses: PoseOptions = field(default_factory=PoseOptions)
    choice: ChoiceOptions = field(default_factory=ChoiceOptions)
    max_gap_s: float = 0.5
    stamps: str = "header"
    metres_per_unit: float | None = 1.0
    test_share: float | None = None
    png: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.max_gap_s < 1e6:
            raise ConfigError(f"--max-gap {self.max_gap_s} is no time above 0 s")
        scale = self.metres_per_unit
        if scale is not None and not 0 < scale < 1e9:
            raise ConfigError(f"--metres-per-unit {scale} is no number above 0")
        if self.focal_px is not None and not 0 < self.focal_px < 1e6:
            raise ConfigError(f"--focal-px {self.focal_px} is no focal length in pixels")


@dataclass(slots=True)
class _Taken:
    """The best image of a group so far."""

    image: int
    path: Path
    quality: Quality
    camera: Intrinsics


class BagPass:
    """One open bag on its way into the dataset; ``report`` says what became of it.

    Raises:
        BagError: the bag is unreadable or ambiguous, or has no camera.
    """

    def __init__(self, path: Path, name: str, options: FromBagOptions) -> None:
        self._path, self._options = path, options
        self._bag = BagReader(path, options.image_topic, NO_POSE_TOPIC, salvage=True)
        try:
            scan = self._scan()
            self._scanned = scan
            self._order = self._usable_images()
            self._source = self._find_source()
            stamps = [scan.image_stamps_ns[i] for i in self._order]
            seconds = (stamps[-1] - stamps[0]) / 1e9 if stamps else 0.0
            self.report = PassReport(
                name,
                str(path),
                self._bag.image_topic,
                self._source.words,
                self._source.world,
                len(scan.image_stamps_ns),
                seconds,
                unit_name(options.metres_per_unit),
            )
            self._start_ns = stamps[0] if stamps else 0
            self._find_cameras()
            self._note_troubles()
        except BaseException:
            self._bag.close()
            raise

    def __enter__(self) -> BagPass:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._bag.close()

    def _scan(self) -> BagScan:
        options = self._options
        by_receipt = options.stamps == "receive"
        self._pose_topic = choose_pose_topic(self._bag, options.pose_topic)
        try:
            return scan_bag(self._bag, self._pose_topic, options.camera_info_topic, by_receipt)
        except BagError:
            # Damage in the midst of a file shows when it is read. Opened before the old one is
            # closed, so that there is always one to close.
            named = options.image_topic, NO_POSE_TOPIC
            salvaged = BagReader(self._path, *named, salvage=True, damaged=True)
            self._bag.close()
            self._bag = salvaged
        self._pose_topic = choose_pose_topic(self._bag, options.pose_topic)
        return scan_bag(self._bag, self._pose_topic, options.camera_info_topic, by_receipt)

    def _usable_images(self) -> list[int]:
        """Images in the order of their stamps, one of each stamp."""
        stamps = self._scanned.image_stamps_ns
        order, last = [], -1
        for index in sorted(range(len(stamps)), key=lambda i: (stamps[i], i)):
            if stamps[index] > last:
                order.append(index)
                last = stamps[index]
        return order

    def _find_source(self) -> PoseSource:
        scan, options = self._scanned, self._options.poses
        frames = scan.image_frames or Counter([""])
        if len(frames) > 1 and options.image_frame is None:
            raise BagError(
                f"{self._path}: images on {self._bag.image_topic!r} are of frames "
                f"{listing([repr(name) for name in frames])}; pass --image-frame"
            )
        topic = None
        if self._pose_topic is not None:
            topic = pose_topic_of(self._path, self._pose_topic, scan, options.world_frame)
        self._graph = scan.graph()
        return pose_source(str(self._path), self._graph, topic, next(iter(frames)), options)

    def _find_cameras(self) -> None:
        scan, options = self._scanned, self._options
        if options.focal_px is not None or scan.cameras:
            return
        topic = options.camera_info_topic or camera_info_topic("auto", self._bag.image_topic)
        reason = f" that can be used ({scan.camera_trouble})" if scan.camera_trouble else ""
        others = listing([repr(name) for name in self._bag.topics((CAMERA_INFO,))])
        raise BagError(
            f"{self._path}: no camera_info{reason} on {topic!r}; there is some on: {others}. Pass "
            "--camera-info-topic, or --focal-px (in pixels of the images)"
        )

    def _note_troubles(self) -> None:
        scan, notes = self._scanned, self.report.notes
        if self._bag.losses:
            kept = f"{self._bag.message_count} messages and {self._bag.duration_s:.1f} s"
            lost = "; ".join(map(str, self._bag.losses))
            notes.append(f"damaged: salvaged {kept}{what_was_recorded(self._path)}. {lost}")
        stamps = np.array(scan.image_stamps_ns)
        if backwards := int((np.diff(stamps[stamps >= 0]) < 0).sum()):
            notes.append(f"{backwards} images were stamped before the one in front of them: sorted")
        if scan.unstamped:
            notes.append(f"{scan.unstamped} images have no stamp: the time of receipt was taken")
        for topic, count in scan.damaged.items():
            notes.append(f"{count} messages on {topic!r} are damaged and were left out")
        notes.extend(self._graph.conflicts())
        sources = list(scan.poses.values()) or list(scan.moving.values())
        delays = scan.delay_s(sources)
        if delays is not None and abs(delays[0] - delays[1]) > _STRANGE_DELAY_S:
            notes.append(
                f"images were received {delays[0]:.2f} s after their stamps and poses "
                f"{delays[1]:.2f} s: if their clocks are not the same one, pass --stamps receive"
            )
        if len(scan.cameras) > 1 and self._options.focal_px is None:
            notes.append(
                f"the camera changes {len(scan.cameras) - 1} times; each frame has its own"
            )

    def write(
        self, folder: Path, fixed: str, share: float, progress: Progress
    ) -> dict[str, list[WrittenFrame]]:
        """Choose frames and write their images; the frames by split (``fixed``, or by blocks)."""
        poses = self._resolve()
        images = list(poses)
        groups = group_by_motion(list(poses.values()), self._options.choice)
        fates = dict.fromkeys(images, "not moved on")
        group_of = {images[i]: number for number, group in enumerate(groups) for i in group}
        taken = self._take_best(folder, group_of, fates, progress)
        verdicts = judge([one.quality for one in taken], self._options.choice)
        for one, verdict in zip(taken, verdicts, strict=True):
            fates[one.image] = verdict
        good = [one for one in taken if not fates[one.image]]
        for one, split in zip(good, held_out_blocks(len(good), share), strict=True):
            fates[one.image] = fixed or split or "between train and test"
        frames: dict[str, list[WrittenFrame]] = {"train": [], "test": []}
        for one in taken:
            if fates[one.image] not in frames:
                one.path.unlink()
                continue
            stamp_s = self._scanned.image_stamps_ns[one.image] / 1e9
            name = one.path.relative_to(folder).as_posix()
            frames[fates[one.image]].append(
                WrittenFrame(name, poses[one.image], stamp_s, one.camera)
            )
        self._tell(poses, fates, frames)
        return frames

    def _resolve(self) -> dict[int, Pose]:
        """Image -> camera-to-world pose; says which have none, and where poses leap or fail."""
        report, gap_s = self.report, self._options.max_gap_s
        leaps: list[Jump] = []
        for edge in self._source.moving:
            assert edge.moving is not None
            walk, where = edge.moving, f"{edge.parent} -> {edge.child}"
            found = find_jumps(walk.stamps_ns, walk.positions, walk.quaternions)
            leaps += found
            report.jumps += [(self._since(jump.end_ns), jump, where) for jump in found]
            for i in np.flatnonzero(np.diff(walk.stamps_ns) > gap_s * 1e9):
                seconds = float(walk.stamps_ns[i + 1] - walk.stamps_ns[i]) / 1e9
                step = float(np.linalg.norm(walk.positions[i + 1] - walk.positions[i]))
                report.gaps.append(Gap(self._since(walk.stamps_ns[i]), seconds, step, where))
        poses: dict[int, Pose] = {}
        reasons: Counter[str] = Counter()
        for image in self._order:
            stamp_ns = self._scanned.image_stamps_ns[image]
            pose = self._source.at(stamp_ns, gap_s)
            if isinstance(pose, str):
                reasons[pose] += 1
            elif any(leap.start_ns < stamp_ns < leap.end_ns for leap in leaps):
                reasons["within a jump of the poses"] += 1
            else:
                poses[image] = pose
        if repeated := report.images - len(self._order):
            reasons["damaged, or of a stamp that was there already"] += repeated
        report.left_out.update(reasons)
        if not poses:
            raise BagError(
                f"{self._path}: none of {report.images} images has a pose; {self._why()}"
            )
        return poses

    def _since(self, stamp_ns: int) -> float:
        return float(int(stamp_ns) - self._start_ns) / 1e9

    def _why(self) -> str:
        reason, count = Counter(self.report.left_out).most_common(1)[0]
        walks = [edge.moving for edge in self._source.moving if edge.moving is not None]
        spans = [
            f"{self._since(walk.stamps_ns[0]):.1f} to {self._since(walk.stamps_ns[-1]):.1f} s"
            for walk in walks
            if len(walk.stamps_ns)
        ]
        return (
            f"{count} are {reason}. Images are stamped 0 to {self.report.seconds:.1f} s, poses "
            f"{', '.join(spans) or 'never'}; where the clocks differ pass --stamps receive, where "
            "poses are rare --max-gap"
        )

    def _take_best(
        self, folder: Path, group_of: Mapping[int, int], fates: dict[int, str], progress: Progress
    ) -> list[_Taken]:
        """The second walk: write the best image of each group; in the order of time."""
        target = folder / "images" / self.report.name
        target.mkdir(parents=True)
        best: dict[int, _Taken] = {}
        for index, image in enumerate(self._bag.images()):
            progress(index + 1, self.report.images, self.report.name)
            if (group := group_of.get(index)) is None:
                continue
            try:
                pixels = image.decode()
            except ImageError as error:
                fates[index] = "broken image"
                if not any("broken" in note for note in self.report.notes):
                    self.report.notes.append(f"the first broken image: {error}")
                continue
            quality = measure(pixels)
            last = best.get(group)
            if not better(quality, last.quality if last else None):
                continue
            if last is not None:
                last.path.unlink()
            camera = self._camera(image, pixels)
            suffix, data = image_file(image, pixels, self._options.png)
            path = target / f"{group:06d}{suffix}"
            path.write_bytes(data)
            best[group] = _Taken(index, path, quality, camera)
        return [best[group] for group in sorted(best)]

    def _camera(self, image: BagImage, pixels: ImageHW3) -> Intrinsics:
        height, width = pixels.shape[:2]
        focal = self._options.focal_px
        if focal is not None:
            return Intrinsics(focal, focal, (width - 1) / 2, (height - 1) / 2, width, height)
        found = camera_at(self._scanned.cameras, image.log_time_ns)
        assert found is not None
        if not found.intrinsics.fits(width, height):
            camera = found.intrinsics
            raise BagError(
                f"{self._path}: images on {self._bag.image_topic!r} are {width}x{height}, but "
                f"camera_info is for {camera.width}x{camera.height}: of another camera? Pass "
                "--camera-info-topic or --focal-px"
            )
        return found.intrinsics.scaled_to(width, height)

    def _tell(
        self,
        poses: Mapping[int, Pose],
        fates: Mapping[int, str],
        frames: Mapping[str, list[WrittenFrame]],
    ) -> None:
        report = self.report
        report.frames = {split: len(part) for split, part in frames.items()}
        counts = Counter(fate for fate in fates.values() if fate not in frames)
        report.left_out.update(counts)
        report.positions = [pose.position.tolist() for pose in poses.values()]
        report.fates = [fates[image] for image in poses]
        views = viewing_direction(np.array([pose.quaternion for pose in poses.values()]))
        if float(np.median(views[:, 2])) > _STRAIGHT_UP:
            report.notes.append(
                f"the camera looks along {report.world}'s z, straight up, most of the time: of "
                "a body (x forward, z up), taken for optical? See --pose-of and --image-axes"
            )
        jumps = [at_s for at_s, _, _ in report.jumps]
        report.jump_lines = self._lines(poses, [(at_s, at_s) for at_s in jumps])
        report.gap_lines = self._lines(poses, [(g.at_s, g.at_s + g.seconds) for g in report.gaps])

    def _lines(
        self, poses: Mapping[int, Pose], spans: Sequence[tuple[float, float]]
    ) -> list[tuple[list[float], list[float]]]:
        """From the last image before each span to the first behind it."""
        times = [self._since(self._scanned.image_stamps_ns[image]) for image in poses]
        places = [pose.position.tolist() for pose in poses.values()]
        lines = []
        for start_s, end_s in spans:
            # Left of the images that are stamped at the very sample after the jump.
            before, after = bisect_left(times, start_s) - 1, bisect_left(times, end_s)
            if before >= 0 and after < len(places):
                lines.append((places[before], places[after]))
        return lines
