# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""From what the network says of an image to what is told: pose and covariance, or why none."""

from __future__ import annotations

import numpy as np

from mspn_ros.geometry import Similarity
from mspn_ros.inference.familiarity import confidence_of, growth_of
from mspn_ros.inference.read_out import Answer, ReadOut
from mspn_ros.records import UNKNOWN_SCENE, UNKNOWN_SCENE_ID, Array, PoseEstimate, SceneRow


def estimate_of(
    read_out: ReadOut, answer: Answer, forced: int | None, min_confidence: float | None
) -> PoseEstimate:
    """What is told of an image: a pose, or that the place is unknown and why.

    ``forced`` and ``min_confidence`` as in ``Localizer.localize``.
    """
    row, position, quaternion = answer.row, answer.position, answer.quaternion
    # Where only some scenes may answer, one of them always is most likely, wherever the image is
    # from. Familiarity tells then; a row without it is held against all scenes.
    known = answer.familiarity is not None
    share = answer.likely.probability if known else answer.likely.among_all
    confidence = confidence_of(answer.familiarity, share)
    names = read_out.rows.columns.name
    probabilities = {names[scene]: share for scene, share in answer.likely.scenes}
    if row is None:
        reason = f"{names[answer.likely.scene]} is most likely, but {answer.trouble}"
        return PoseEstimate(
            UNKNOWN_SCENE_ID, UNKNOWN_SCENE, confidence, reason=reason, probabilities=probabilities
        )
    if not (np.isfinite(position).all() and np.isfinite(quaternion).all()):
        reason = f"the network's output for scene {row.name} is not finite"
        return PoseEstimate(UNKNOWN_SCENE_ID, UNKNOWN_SCENE, 0.0, reason=reason)
    threshold = row.acceptance_threshold if min_confidence is None else min_confidence
    if forced is None and confidence < threshold:
        reason = f"{row.name} is most likely, but {confidence:.3f} is below {threshold:.3f}"
        return PoseEstimate(
            UNKNOWN_SCENE_ID, UNKNOWN_SCENE, confidence, reason=reason, probabilities=probabilities
        )
    position, quaternion, covariance = _in_map(row, position, quaternion, _covariance(row, answer))
    return PoseEstimate(
        scene_id=row.id,
        scene=row.name,
        confidence=confidence,
        frame_id=row.map_frame or row.frame_id,
        position=position,
        quaternion=quaternion,
        covariance=covariance,
        probabilities=probabilities,
        metres_per_unit=1.0 if row.map_frame else row.metres_per_unit,
    )


def unless_close(estimate: PoseEstimate, min_margin: float) -> PoseEstimate:
    """The estimate, or unknown where two scenes are about as likely as each other."""
    ranked = sorted(estimate.probabilities.items(), key=lambda item: -item[1])[:2]
    if not estimate.known or len(ranked) < 2 or ranked[0][1] - ranked[1][1] >= min_margin:
        return estimate
    (first, more), (second, less) = ranked
    return PoseEstimate(
        UNKNOWN_SCENE_ID,
        UNKNOWN_SCENE,
        estimate.confidence,
        reason=f"{first} ({more:.3f}) and {second} ({less:.3f}) look alike here: they differ by "
        f"less than {min_margin:.3f}",
        probabilities=estimate.probabilities,
    )


def _covariance(row: SceneRow, answer: Answer) -> Array:
    """The head's own covariance of this image, as large as held-out errors ask for; or theirs.

    Grown by how unfamiliar the image is.
    """
    own = answer.covariance
    growth = float(growth_of(np.array(answer.familiarity or 0.0)))
    if own is None or not np.isfinite(own).all():
        return growth**2 * scene_covariance(row)
    factors = row.held_out.own_factors if row.held_out else None
    position, rotation = growth * np.sqrt(factors or (1.0, 1.0))
    scale = np.array([position] * 3 + [rotation] * 3)
    return np.asarray(own * np.outer(scale, scale))


def scene_covariance(row: SceneRow) -> Array:
    """(6, 6) covariance of a scene's poses, REP-103 order, from its held-out errors.

    Without held-out frames nothing is known but the scene's size: half the extent as standard
    deviation, and half a turn.
    """
    if row.held_out is None:
        half = max(row.extent / 2, 1e-3)
        return np.diag([half**2] * 3 + [(np.pi / 2) ** 2] * 3)
    return row.held_out.covariance


def _in_map(
    row: SceneRow, position: Array, quaternion: Array, covariance: Array
) -> tuple[Array, Array, Array]:
    """Carry a pose into the scene's map frame by its stored similarity, if it has one."""
    if row.map_from_scene is None:
        return position, quaternion, covariance
    similarity = Similarity.from_array(row.map_from_scene)
    return (
        *similarity.apply(position, quaternion),
        similarity.apply_to_covariance(covariance),
    )
