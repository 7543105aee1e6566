# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Structure from motion by pycolmap, in a process of its own; started by datasets/sfm.py.

Its own, because native code that meets a stranger's files may end the process that it runs in,
prints to stdout and stderr as it likes, and brings another OpenMP than torch's. It is run as a
file (``SCRIPT WORK``), so that it imports neither torch nor this package. ``WORK/task.json`` says
what to do; ``WORK/model-RUN-K.npz`` are the models, largest first. Each line on stdout is a JSON
object: ``{"step", "done", "total"}``, or ``{"error"}`` for the user before exit code 3.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

USER_ERROR = 3
# Up to so many images every pair is matched: it is quick, and finds what no guess does.
_EXHAUSTIVE = 80
# Neighbours in a pass; further ones at distances of powers of two.
_NEIGHBOURS = 8
# Images of other places in time, or of other passes, that look most alike.
_ALIKE = 16
_WORDS, _WORD_SAMPLE = 64, 40_000
_BATCH_IMAGES, _BATCH_PAIRS, _BATCH_VERIFIED = 8, 200, 2000
# A guess is answered by the first of the models; more of them only say what was lost.
_MOST_MODELS = 10
# Where no file says the focal length: that for which most matches vote, or else guesses, phones and
# robots first; by the longer side. COLMAP's own guess, 1.2, leads nowhere with wide lenses. The
# first that places this share is taken.
_VOTED = 0.0
_FOCAL_GUESSES = (_VOTED, 0.75, 1.1, 0.5, 1.6)
_ENOUGH = 0.8
# What is voted for: 28 to 103 degrees of view. Pairs that hardly move say nothing.
_FOCALS = 0.4 * 1.15 ** np.arange(12)
_MOST_VOTES, _LEAST_VOTES, _VOTE_MATCHES, _VOTE_MOTION = 600, 5, 40, 0.05
# COLMAP's numbers of CALIBRATED and UNCALIBRATED pairs.
_WITH_DEPTH = (2, 3)


class _Talk:
    """JSON lines on what was stdout; whatever native code prints goes to stderr, the log."""

    def __init__(self) -> None:
        self._file = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def say(self, **values: Any) -> None:
        self._file.write(json.dumps(values) + "\n")
        self._file.flush()


def main(work: Path) -> int:
    """Features, matches, mapping; steps that WORK has already are not done again."""
    talk = _Talk()
    try:
        import pycolmap
    except (ImportError, OSError) as error:
        talk.say(error=f"pycolmap cannot be loaded ({error}); run: pip install mspn_ros[sfm]")
        return USER_ERROR
    task = json.loads((work / "task.json").read_text(encoding="utf-8"))
    run = task["run"]
    pycolmap.set_random_seed(run)
    for path in work.glob(f"model-{run}-*.npz"):
        path.unlink()
    database = work / "features.db"
    if run == 0:
        _extract(pycolmap, task, database, talk)
        _match(pycolmap, task, database, work / "pairs.txt", talk)
    models = _map(pycolmap, task, work, talk)
    for number, model in enumerate(models):
        _save(model, work / f"model-{run}-{number}.npz")
    return 0


def _extract(pycolmap: Any, task: dict[str, Any], path: Path, talk: _Talk) -> None:
    """SIFT features of all images; images of one group share a camera."""
    total = sum(len(group["names"]) for group in task["groups"])
    done = 0
    options = pycolmap.FeatureExtractionOptions()
    options.num_threads = task["threads"]
    options.sift.max_num_features = task["features"]
    for group in task["groups"]:
        names = group["names"]
        # The first alone: a run that was cut off within it has no camera that others would miss.
        for start in (0, *range(1, len(names), _BATCH_IMAGES)):
            batch = names[start : start + _BATCH_IMAGES] if start else names[:1]
            reader = pycolmap.ImageReaderOptions()
            reader.camera_model = group["model"]
            mode = pycolmap.CameraMode.SINGLE
            if start:
                with pycolmap.Database.open(path) as database:
                    first = database.read_image_with_name(names[0])
                reader.existing_camera_id = first.camera_id
            elif group["parameters"] is not None:
                reader.camera_params = ", ".join(str(value) for value in group["parameters"])
            pycolmap.extract_features(
                path,
                task["images"],
                batch,
                camera_mode=mode,
                reader_options=reader,
                extraction_options=options,
                device=pycolmap.Device.cpu,
            )
            done += len(batch)
            talk.say(step="features", done=done, total=total)


def _match(pycolmap: Any, task: dict[str, Any], path: Path, list_path: Path, talk: _Talk) -> None:
    """Match the chosen pairs; those that the database has are passed over."""
    passes = task["passes"]
    names = [name for one in passes for name in one]
    if len(names) <= _EXHAUSTIVE:
        pairs = {(a, b) for a in range(len(names)) for b in range(a)}
    else:
        pairs = _neighbours(passes) | _alike(pycolmap, path, names)
    ordered = sorted((max(pair), min(pair)) for pair in pairs)
    options = pycolmap.FeatureMatchingOptions()
    options.num_threads = task["threads"]
    # Verified once the focal length is there.
    options.skip_geometric_verification = True
    pairing = pycolmap.ImportedPairingOptions()
    pairing.match_list_path = list_path
    for start in range(0, len(ordered), _BATCH_PAIRS):
        batch = ordered[start : start + _BATCH_PAIRS]
        list_path.write_text("".join(f"{names[a]} {names[b]}\n" for a, b in batch))
        pycolmap.match_image_pairs(
            path,
            matching_options=options,
            pairing_options=pairing,
            device=pycolmap.Device.cpu,
        )
        talk.say(step="matches", done=start + len(batch), total=len(ordered))


def _pair_counts(pycolmap: Any, path: Path) -> dict[str, int]:
    with pycolmap.Database.open(path) as database:
        _, geometries = database.read_two_view_geometries()
    kinds = [
        str(pycolmap.TwoViewGeometryConfiguration(geometry.config).name)
        for geometry in geometries
        if len(geometry.inlier_matches)
    ]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def _neighbours(passes: list[list[str]]) -> set[tuple[int, int]]:
    """Pairs of images that follow each other, near by and at distances of powers of two."""
    distances = {*range(1, _NEIGHBOURS + 1), *(2**power for power in range(4, 8))}
    pairs: set[tuple[int, int]] = set()
    first = 0
    for one in passes:
        last = first + len(one)
        pairs |= {(i + d, i) for i in range(first, last) for d in distances if i + d < last}
        first = last
    return pairs


def _alike(pycolmap: Any, path: Path, names: list[str]) -> set[tuple[int, int]]:
    """For each image the pairs with those that look most alike: where a walk comes back.

    By vectors of locally aggregated descriptors (Jégou et al. 2010) over a vocabulary that is
    learned from these very images: a trained one would have to be downloaded.
    """
    import cv2

    with pycolmap.Database.open(path) as database:
        ids = {image.name: image.image_id for image in database.read_all_images()}
        found = [_descriptors(database.read_descriptors(ids[name])) for name in names]
    share = max(1, _WORD_SAMPLE // len(names))
    rng = np.random.default_rng(0)
    sample = [d[rng.permutation(len(d))[:share]] for d in found]
    everything = np.concatenate(sample)
    if len(everything) < _WORDS:
        return set()
    cv2.setRNGSeed(0)
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 15, 1e-3)
    _, _, words = cv2.kmeans(everything, _WORDS, None, criteria, 1, cv2.KMEANS_PP_CENTERS)
    vectors = np.stack([_aggregate(d, words) for d in found])
    likeness = vectors @ vectors.T
    # Neighbours in time are matched anyway; they would fill the list.
    near = np.abs(np.arange(len(names))[:, None] - np.arange(len(names))) <= _NEIGHBOURS
    likeness[near] = -np.inf
    best = np.argsort(-likeness, axis=1)[:, :_ALIKE]
    return {
        (max(i, int(j)), min(i, int(j)))
        for i in range(len(names))
        for j in best[i]
        if likeness[i, j] > -np.inf
    }


def _descriptors(found: Any) -> Any:
    return np.asarray(found.data, np.float32).reshape(-1, 128) / 512


def _aggregate(descriptors: Any, words: Any) -> Any:
    """(N, 128) descriptors -> (words * 128,): how they differ from their words, normalised."""
    total = np.zeros_like(words)
    if len(descriptors):
        squared = (words * words).sum(1) - 2 * descriptors @ words.T
        nearest = squared.argmin(1)
        np.add.at(total, nearest, descriptors - words[nearest])
    total /= np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-9)
    return total.ravel() / max(float(np.linalg.norm(total)), 1e-9)


def _map(pycolmap: Any, task: dict[str, Any], work: Path, talk: _Talk) -> list[Any]:
    """The models, largest first; with other guesses at the focal length where one leads nowhere."""
    total = sum(len(one) for one in task["passes"])
    unknown = [group["names"][0] for group in task["groups"] if group["parameters"] is None]
    votes = _votes(pycolmap, task, work, talk, unknown) if unknown else {}
    best: list[Any] = []
    for guess in _FOCAL_GUESSES if unknown else _FOCAL_GUESSES[:1]:
        shares = {name: guess or votes[name] for name in unknown}
        if not all(shares.values()):
            continue
        _set_cameras(pycolmap, work / "features.db", shares)
        _verify(pycolmap, task, work, talk)
        found = _map_once(pycolmap, task, work, talk)
        if not best or (found and _placed(found) > _placed(best)):
            best = found
        if best and _placed(best) >= _ENOUGH * total:
            break
    return best


def _placed(models: list[Any]) -> int:
    return int(models[0].num_reg_images())


def _votes(
    pycolmap: Any, task: dict[str, Any], work: Path, talk: _Talk, names: list[str]
) -> dict[str, float]:
    """For the camera of each of the images ``names`` the focal length that is voted for.

    Found once, from pairs that are verified without one.
    """
    stored = work / "features.votes.json"
    if stored.exists():
        known = json.loads(stored.read_text(encoding="utf-8"))
        return {name: float(known[name]) for name in names}
    _verify(pycolmap, task, work, talk)
    votes = {}
    with pycolmap.Database.open(work / "features.db") as database:
        for name in names:
            image = database.read_image_with_name(name)
            camera = database.read_camera(image.camera_id)
            side = max(camera.width, camera.height)
            votes[name] = _vote(_moving_pairs(pycolmap, database, camera), side)
    # Whole or not at all: half a file would stop every later run.
    part = work / "features.votes.part"
    part.write_text(json.dumps(votes), encoding="utf-8")
    part.replace(stored)
    return votes


def _set_cameras(pycolmap: Any, path: Path, shares: dict[str, float]) -> None:
    """Give the cameras of images a focal length by the longer side as if it were known.

    COLMAP leaves it open else, and finds far fewer pairs to begin with.
    """
    with pycolmap.Database.open(path) as database:
        for name, share in shares.items():
            image = database.read_image_with_name(name)
            camera = database.read_camera(image.camera_id)
            parameters = np.array(camera.params)
            parameters[camera.focal_length_idxs()] = share * max(camera.width, camera.height)
            parameters[camera.extra_params_idxs()] = 0
            camera.params = parameters
            camera.has_prior_focal_length = True
            database.update_camera(camera)


def _moving_pairs(pycolmap: Any, database: Any, camera: Any) -> list[tuple[Any, Any]]:
    """Matching points (N, 2) of pairs of the camera's images that moved; from the middle."""
    images = {i.image_id for i in database.read_all_images() if i.camera_id == camera.camera_id}
    pairs = []
    for pair_id, geometry in zip(*database.read_two_view_geometries(), strict=True):
        one, two = pycolmap.pair_id_to_image_pair(pair_id)
        matches = np.asarray(geometry.inlier_matches)
        # Those that a homography explains fit to every focal length.
        told = len(matches) >= _VOTE_MATCHES and geometry.config in _WITH_DEPTH
        if told and one in images and two in images:
            pairs.append((one, two, matches))
    middle = np.array([camera.principal_point_x, camera.principal_point_y])
    moved = []
    for k in np.random.default_rng(0).permutation(len(pairs))[: 3 * _MOST_VOTES]:
        one, two, matches = pairs[k]
        a, b = (
            np.asarray(database.read_keypoints(image), np.float64)[own, :2] - middle
            for image, own in ((one, matches[:, 0]), (two, matches[:, 1]))
        )
        if np.median(np.linalg.norm(a - b, axis=1)) > _VOTE_MOTION * camera.width:
            moved.append((a, b))
    return moved[:_MOST_VOTES]


def _vote(pairs: list[tuple[Any, Any]], side: int) -> float:
    """The focal length, by the longer side, with which essential matrices explain most matches.

    0 where too few pairs vote.
    """
    import cv2

    if len(pairs) < _LEAST_VOTES:
        return 0.0
    votes = []
    for share in _FOCALS:
        focal, fitting = share * side, 0
        for a, b in pairs:
            _, mask = cv2.findEssentialMat(
                a / focal, b / focal, np.eye(3), cv2.USAC_MAGSAC, 0.999, 1 / focal, 300
            )
            fitting += 0 if mask is None else int(mask.sum())
        votes.append(fitting)
    best = int(np.argmax(votes))
    if not 0 < best < len(_FOCALS) - 1:
        return float(_FOCALS[best])
    # The top of the parabola through the best and its neighbours, in logarithms.
    low, top, high = votes[best - 1 : best + 2]
    shift = 0.5 * (low - high) / min(low - 2 * top + high, -1e-9)
    return float(_FOCALS[best] * (_FOCALS[1] / _FOCALS[0]) ** float(np.clip(shift, -1, 1)))


def _verify(pycolmap: Any, task: dict[str, Any], work: Path, talk: _Talk) -> None:
    """What relates the pairs that match, by the cameras as they are now."""
    path, list_path = work / "features.db", work / "pairs.txt"
    with pycolmap.Database.open(path) as database:
        names = {image.image_id: image.name for image in database.read_all_images()}
        ids, _ = database.read_all_matches()
        database.clear_two_view_geometries()
    pairs = [pycolmap.pair_id_to_image_pair(pair) for pair in ids]
    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.random_seed = task["run"]
    for start in range(0, len(pairs), _BATCH_VERIFIED):
        batch = pairs[start : start + _BATCH_VERIFIED]
        list_path.write_text("".join(f"{names[a]} {names[b]}\n" for a, b in batch))
        pycolmap.verify_matches(path, list_path, options)
        talk.say(step="geometry", done=start + len(batch), total=len(pairs))
    (work / "pairs.json").write_text(json.dumps(_pair_counts(pycolmap, path)))


def _map_once(pycolmap: Any, task: dict[str, Any], work: Path, talk: _Talk) -> list[Any]:
    """The models by the cameras that the database has to begin with, largest first."""
    total = sum(len(one) for one in task["passes"])
    models = work / "models"
    shutil.rmtree(models, ignore_errors=True)
    models.mkdir()
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = task["threads"]
    options.random_seed = task["run"]
    options.max_num_models = _MOST_MODELS
    options.min_model_size = 3
    placed = 2

    def one_more() -> None:
        nonlocal placed
        placed = min(placed + 1, total)
        talk.say(step="cameras", done=placed, total=total)

    talk.say(step="cameras", done=0, total=total)
    found = pycolmap.incremental_mapping(
        work / "features.db", task["images"], models, options, next_image_callback=one_more
    )
    return sorted(found.values(), key=lambda model: -model.num_reg_images())


def _save(model: Any, path: Path) -> None:
    """Poses camera-to-world, cameras in COLMAP's terms, points with their tracks."""
    images = [model.images[image_id] for image_id in model.reg_image_ids()]
    images.sort(key=lambda image: image.name)
    poses = np.zeros((len(images), 3, 4))
    for row, image in zip(poses, images, strict=True):
        row[:] = image.cam_from_world().inverse().matrix()
    centres = {image.image_id: row[:, 3] for image, row in zip(images, poses, strict=True)}
    camera_ids = sorted({image.camera_id for image in images})
    cameras = [model.cameras[camera_id] for camera_id in camera_ids]
    points = list(model.points3D.values())
    np.savez(
        path,
        names=np.array([image.name for image in images], np.str_),
        poses=poses,
        camera_of=np.array([camera_ids.index(image.camera_id) for image in images]),
        camera_models=np.array([camera.model.name for camera in cameras], np.str_),
        camera_sizes=np.array([(camera.width, camera.height) for camera in cameras]),
        camera_parameters=np.array([_padded(camera.params) for camera in cameras]),
        points=np.array([point.xyz for point in points]).reshape(-1, 3),
        colours=np.array([point.color for point in points], np.uint8).reshape(-1, 3),
        errors_px=np.array([point.error for point in points]),
        track_lengths=np.array([point.track.length() for point in points]),
        angles_deg=np.array([_widest(point, centres) for point in points]),
    )


def _padded(parameters: Any) -> list[float]:
    return [*map(float, parameters), *[0.0] * 8][:8]


def _widest(point: Any, centres: dict[int, Any]) -> float:
    """The greatest angle in degrees under which two cameras see the point, of up to eight."""
    seen = [centres[e.image_id] for e in point.track.elements if e.image_id in centres]
    chosen = seen[:: max(1, len(seen) // 8)]
    rays = np.array(chosen) - point.xyz
    rays /= np.maximum(np.linalg.norm(rays, axis=1, keepdims=True), 1e-12)
    return float(np.degrees(np.arccos(np.clip((rays @ rays.T).min(), -1, 1))))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
