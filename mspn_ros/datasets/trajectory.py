# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Poses over time: ground truth looked up at image stamps, and TUM files for other tools."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation, Slerp

from mspn_ros.records import Array, Pose

Stamps = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """Poses of one moving body in one frame, in the order of time.

    ``stamps_ns`` (N,) int64, strictly increasing; ``positions`` (N, 3); ``quaternions`` (N, 4)
    xyzw, unit. ``dropped`` counts the samples that :meth:`from_samples` left out.
    """

    stamps_ns: Stamps
    positions: Array
    quaternions: Array
    dropped: int = 0

    @classmethod
    def from_samples(cls, stamps: Stamps, positions: Array, quaternions: Array) -> Trajectory:
        """Build from samples in any order: (N,) ns, (N, 3), (N, 4) xyzw.

        Left out and counted: a number that is not finite, a quaternion whose norm differs from
        1 by more than 0.1 (an unset one is all zeros), a stamp given again (the first stays).
        """
        stamps_ns = np.asarray(stamps, np.int64).reshape(-1)
        position_N3 = np.asarray(positions, np.float64).reshape(-1, 3)
        quaternion_N4 = np.asarray(quaternions, np.float64).reshape(-1, 4)
        norms = np.linalg.norm(quaternion_N4, axis=1)
        # NaN and infinite quaternions fail the norm's comparison as well.
        usable = np.isfinite(position_N3).all(1) & (np.abs(norms - 1) <= 0.1)
        kept = np.flatnonzero(usable)
        # np.unique sorts, and gives the first index of each stamp.
        unique_ns, first = np.unique(stamps_ns[kept], return_index=True)
        kept = kept[first]
        return cls(
            unique_ns,
            position_N3[kept],
            quaternion_N4[kept] / norms[kept, None],
            len(stamps_ns) - len(kept),
        )

    def interpolate(self, stamp_ns: int, max_gap_s: float = 0.5) -> Pose | None:
        """The pose at a stamp: linear in position, slerp in orientation; never extrapolated.

        A stamp that was sampled gives exactly that sample. None before the first and after the
        last sample, and between two samples that are more than ``max_gap_s`` seconds apart.
        """
        after = int(np.searchsorted(self.stamps_ns, stamp_ns))
        if after == len(self.stamps_ns):
            return None
        if self.stamps_ns[after] == stamp_ns:
            return Pose(self.positions[after], self.quaternions[after])
        if after == 0:
            return None
        pair = slice(after - 1, after + 1)
        # Python integers: a stamp near the end of int64 must not wrap.
        start_ns, end_ns = (int(stamp) for stamp in self.stamps_ns[pair])
        if end_ns - start_ns > max_gap_s * 1e9:
            return None
        share = (stamp_ns - start_ns) / (end_ns - start_ns)
        before, behind = self.positions[pair]
        turn = Slerp((0.0, 1.0), Rotation.from_quat(self.quaternions[pair]))
        return Pose(before + share * (behind - before), np.asarray(turn(share).as_quat()))


def write_tum(path: Path, stamps_s: Array, positions: Array, quaternions: Array) -> None:
    """Write a TUM trajectory, which evo reads: a line ``stamp tx ty tz qx qy qz qw`` a pose.

    ``stamps_s`` (N,) seconds, ``positions`` (N, 3), ``quaternions`` (N, 4) xyzw; the caller
    leaves out frames without a pose.

    Raises:
        ValueError: a number is not finite, or the lengths differ.
        OSError: the file cannot be written.
    """
    rows = np.column_stack((stamps_s, positions, quaternions)).astype(np.float64)
    if not np.isfinite(rows).all():
        raise ValueError(f"{path}: a pose has a NaN or an infinite number")
    np.savetxt(path, rows, fmt="%.9f", header="timestamp tx ty tz qx qy qz qw")
