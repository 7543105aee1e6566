# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The image cache: what is stored is what the robot computes, whatever breaks meanwhile."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_files import write_walk
from PIL import Image

from mspn_ros.datasets import read_scene
from mspn_ros.images import read_image
from mspn_ros.records import ConfigError
from mspn_ros.training.cache import cache_folder, open_pack
from mspn_ros.training.samples import FrameStore, gather_windows
from mspn_ros.view import View, center_crop

VIEW = View(40, 48)

OPEN = """
import sys
from pathlib import Path
from mspn_ros.datasets import read_scene
from mspn_ros.training.cache import open_pack
from mspn_ros.records import MspnError
from mspn_ros.view import View
try:
    scene = read_scene(Path(sys.argv[1]))
    pack = open_pack(scene.split("train"), View(32, int(sys.argv[3])), Path(sys.argv[2]))
    print(pack.key, int(pack.pixels_P3.long().sum()))
except MspnError as error:
    sys.exit(f"mspn: {error}")
"""


@pytest.fixture
def walk(tmp_path):
    return read_scene(write_walk(tmp_path / "walk"))


def start(scene, folder, resize=48, before=""):
    command = [sys.executable, "-c", before + OPEN, scene.root, folder, str(resize)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def image(pack, i):
    height, width = pack.size_S2[i].tolist()
    first = int(pack.first_S[i])
    return pack.pixels_P3[first : first + height * width].view(height, width, 3)


def test_packs_hold_the_reference_resize_and_are_made_once(walk, tmp_path):
    frames, folder = walk.split("train"), tmp_path / "cache"
    pack = open_pack(frames, VIEW, folder)
    for i, frame in enumerate(frames):
        expected = VIEW.resized(torch.from_numpy(read_image(frame.image_path)))
        assert torch.equal(image(pack, i), expected)
    (stored,) = folder.glob("*.u8")
    before = stored.stat()
    again = open_pack(frames, VIEW, folder)
    assert torch.equal(again.pixels_P3, pack.pixels_P3)
    after = stored.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    in_memory = open_pack(frames, VIEW, None)
    assert torch.equal(in_memory.pixels_P3, pack.pixels_P3)


def test_another_size_or_another_image_is_another_pack(walk, tmp_path):
    frames, folder = walk.split("train"), tmp_path / "cache"
    first = open_pack(frames, VIEW, folder)
    assert open_pack(frames, View(32, 40), folder).key != first.key
    path = frames[3].image_path
    stamp = path.stat()
    Image.new("RGB", (96, 72), (1, 2, 3)).save(path)
    # Not fooled by a kept time stamp, as after an unpacked archive.
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    changed = open_pack(frames, VIEW, folder)
    assert changed.key != first.key
    assert image(changed, 3).float().mean() < 10


def test_two_processes_make_one_pack(walk, tmp_path):
    folder = tmp_path / "cache"
    both = [start(walk, folder) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert len(list(folder.glob("*.u8"))) == len(list(folder.glob("*.json"))) == 1
    assert not list(folder.glob("*.part"))


def test_a_pack_whose_writer_was_killed_is_made_anew(tmp_path):
    scene = read_scene(write_walk(tmp_path / "walk", train=300, size=(640, 480)))
    folder = tmp_path / "cache"
    killed = start(scene, folder, resize=400)
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size for path in folder.glob("*.part")):
        assert killed.poll() is None, killed.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert list(folder.glob("*.part"))
    assert not list(folder.glob("*.json"))
    pack = open_pack(scene.split("train"), View(32, 400), folder)
    assert len(pack.size_S2) == 300
    assert not list(folder.glob("*.part"))
    last = read_image(scene.split("train")[299].image_path)
    expected = View(32, 400).resized(torch.from_numpy(last))
    assert torch.equal(image(pack, 299), expected)


def test_a_shortened_pack_is_not_believed(walk, tmp_path):
    frames, folder = walk.split("train"), tmp_path / "cache"
    whole = open_pack(frames, VIEW, folder).pixels_P3.clone()
    (stored,) = folder.glob("*.u8")
    with stored.open("r+b") as file:
        file.truncate(1000)
    assert torch.equal(open_pack(frames, VIEW, folder).pixels_P3, whole)


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(walk, tmp_path):
    # The kernel refuses to write beyond this size, as it does on a full disk.
    limit = "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
    process = start(walk, tmp_path / "cache", before=limit)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert re.fullmatch(r"mspn: .*image cache cannot be written \(.*\); .*cache=none.*\n", error)
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} == {".lock"}


def test_a_cache_folder_that_cannot_be_made_says_what_to_do(walk, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        open_pack(walk.split("train"), VIEW, tmp_path / "file" / "cache")


def test_the_cache_follows_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("auto") == tmp_path / "mspn_ros" / "images"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder("auto") == Path.home() / ".cache" / "mspn_ros" / "images"
    assert cache_folder("none") is None


def store_of(scenes, tmp_path):
    return FrameStore(scenes, "train", VIEW, str(tmp_path / "cache"))


def test_crops_of_mixed_resolutions_are_those_of_each_image(tmp_path):
    # Three shapes in one scene and a second scene: every crop comes from its own image.
    scenes = [
        read_scene(write_walk(tmp_path / "a", size=(96, 72))),
        read_scene(write_walk(tmp_path / "b", size=(60, 90), seed=1)),
    ]
    for i, size in ((2, (200, 50)), (3, (48, 48))):
        path = scenes[0].split("train")[i].image_path
        noise = np.random.default_rng(i).integers(0, 255, (size[1], size[0], 3), np.uint8)
        Image.fromarray(noise).save(path)
    scenes[0] = read_scene(scenes[0].root)
    samples, bad = store_of(scenes, tmp_path).take([s.split("train") for s in scenes])
    assert not bad
    index = torch.tensor([2, 20, 3, 0, 13])
    images = [
        VIEW.resized(torch.from_numpy(read_image(samples.frames[i].image_path)))
        for i in index.tolist()
    ]
    centred = samples.center_crops(index, 40)
    for got, whole in zip(centred, images, strict=True):
        assert torch.equal(got, center_crop(whole, 40))
    top = torch.tensor([0, 8, 3, 2, 1])
    left = torch.tensor([100, 0, 7, 5, 8])
    for got, whole, y, x in zip(
        samples.crops(index, top, left, 40), images, top.tolist(), left.tolist(), strict=True
    ):
        assert torch.equal(got, whole[y : y + 40, x : x + 40])
    # As on a GPU: all images in one tensor, windows by one index expression.
    together = samples.moved_to(torch.device("cpu"))
    assert len(together.packs) == 1
    width = together.size_S2[index, 1]
    start = together.first_S[index] + top * width + left
    gathered = gather_windows(together.packs[0], start, width, 40)
    assert torch.equal(gathered, samples.crops(index, top, left, 40))


def test_broken_images_and_contradicting_copies_are_left_out_by_name(walk, tmp_path):
    frames = walk.split("train")
    frames[1].image_path.write_bytes(frames[1].image_path.read_bytes()[:400])
    frames[5].image_path.write_bytes(frames[4].image_path.read_bytes())
    # A camera that stands still may well see the same twice.
    frames[8].image_path.write_bytes(frames[7].image_path.read_bytes())
    still = replace(
        walk,
        frames=tuple(
            replace(f, pose=frames[7].pose) if f.name == frames[8].name else f for f in walk.frames
        ),
    )
    samples, bad = store_of([still], tmp_path).take([still.split("train")])
    assert [b.name for b in bad] == [frames[1].name, frames[5].name]
    assert "copy of" in bad[1].reason
    assert len(samples) == len(frames) - 2
