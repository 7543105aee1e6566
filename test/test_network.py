# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The network, its losses and its row-wise Adam against plain forms and numbers made by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from scipy.spatial.transform import Rotation
from torch import nn

from mspn_ros.network.account import parameter_account
from mspn_ros.network.backbone import Architecture, Backbone, backbone_identity
from mspn_ros.network.coding import PoseCoding
from mspn_ros.network.heads import LinearHead
from mspn_ros.network.losses import (
    FixedPoseLoss,
    LearnedPoseLoss,
    TupleLoss,
    known_loss,
    pose_l1,
    scene_loss,
)
from mspn_ros.network.mspn import MSPN
from mspn_ros.network.pretrained import load_pretrained
from mspn_ros.records import ConfigError, ModelError
from mspn_ros.training.row_adam import RowAdam

SMALL = Architecture("mobilenet_v3_small", resize=72, crop=64)


class PlainLoop:
    """N separate nn.Linear layers under N separate Adams: what the stacked form must equal."""

    def __init__(self, head: LinearHead, lr: float):
        scenes, outputs, features = head.weight.shape
        self.layers = [nn.Linear(features, outputs) for _ in range(scenes)]
        for i, layer in enumerate(self.layers):
            layer.load_state_dict(head.row(i))
        self.adams = [torch.optim.Adam(layer.parameters(), lr=lr) for layer in self.layers]

    def __call__(self, feature_BF, scene_B):
        return torch.stack(
            [self.layers[s](f) for f, s in zip(feature_BF, scene_B.tolist(), strict=True)]
        )

    def step(self, scene_B):
        for i in set(scene_B.tolist()):
            self.adams[i].step()
        for layer in self.layers:
            layer.zero_grad()


def test_stacked_heads_learn_as_separate_layers_over_three_steps():
    # Scene 3 is absent from the second batch, scene 0 from the first: under plain Adam on the
    # stacked tensor both would drift by momentum or get a wrong bias correction.
    torch.manual_seed(0)
    head = LinearHead(4, 16, 6)
    plain = PlainLoop(head, 1e-2)
    adam = RowAdam(head.parameters(), lr=1e-2)
    for scenes in ([1, 2, 3, 3, 1], [0, 1, 2, 0, 1], [3, 0, 0, 3, 3]):
        scene_B, feature_BF = torch.tensor(scenes), torch.randn(5, 16)
        target_BP = torch.randn(5, 6)
        stacked = head(feature_BF, scene_B)
        separate = plain(feature_BF, scene_B)
        torch.testing.assert_close(stacked, separate)
        for outputs in (stacked, separate):
            (outputs - target_BP).abs().sum(1).mean().backward()
        adam.step()
        adam.zero_grad()
        plain.step(scene_B)
        for i, layer in enumerate(plain.layers):
            torch.testing.assert_close(head.weight[i], layer.weight, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(head.bias[i], layer.bias, rtol=1e-5, atol=1e-6)


def test_row_adam_leaves_absent_rows_bit_for_bit():
    torch.manual_seed(0)
    head = LinearHead(3, 8, 6)
    adam = RowAdam(head.parameters(), lr=0.1)
    for scenes in ([0, 1, 2], [1, 1, 2]):
        before = head.weight[0].clone()
        head(torch.randn(3, 8), torch.tensor(scenes)).sum().backward()
        adam.step()
        adam.zero_grad()
    assert torch.equal(head.weight[0], before)
    assert not torch.equal(head.weight[1], before)


def test_pose_losses_by_hand():
    pose = torch.tensor([[1.0, 2.0, 3.0, 0.1, 0.2, 0.3], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    target = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, 0.0], [1.0, -1.0, 1.0, 0.5, 0.0, -0.5]])
    scene = torch.tensor([1, 0])
    position, rotation = pose_l1(pose, target)
    torch.testing.assert_close(position, torch.tensor([6.0, 3.0]))
    torch.testing.assert_close(rotation, torch.tensor([0.6, 1.0]))
    fixed = FixedPoseLoss(10.0)(pose, target, scene)
    assert float(fixed) == pytest.approx((6 + 6 + 3 + 10) / 2)
    learned = LearnedPoseLoss(2)
    with torch.no_grad():
        learned.s_t.copy_(torch.tensor([0.5, 0.0]))
        learned.s_q.copy_(torch.tensor([-3.0, -1.0]))
    first = 6 * 1 + 0 + 0.6 * math.e - 1
    second = 3 * math.exp(-0.5) + 0.5 + 1.0 * math.exp(3) - 3
    assert float(learned(pose, target, scene).detach()) == pytest.approx(
        (first + second) / 2, rel=1e-6
    )


def test_learned_weights_tend_to_the_mean_l1_norm():
    # Equation 3's optimum: e^s is the mean norm. Guards against averaging over components,
    # which would shift s by ln 3.
    loss = LearnedPoseLoss(1)
    pose, target = torch.zeros(64, 6), torch.zeros(64, 6)
    pose[:, 0], pose[:, 3] = 2.0, 0.25
    adam = RowAdam(loss.parameters(), lr=0.05)
    for _ in range(400):
        loss(pose, target, torch.zeros(64, dtype=torch.long)).backward()
        adam.step()
        adam.zero_grad()
    assert math.exp(loss.s_t.item()) == pytest.approx(2.0, rel=0.02)
    assert math.exp(loss.s_q.item()) == pytest.approx(0.25, rel=0.02)


def test_scene_loss_by_hand():
    logits = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    expected = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(3))) / 2
    assert float(scene_loss(logits, torch.tensor([0, 0]))) == pytest.approx(expected)


def test_known_loss_by_hand():
    # The third class, that there is no scene, has the logit 0.
    logits, nothing = torch.tensor([[1.0, 0.0]]), torch.tensor([[-2.0, 3.0]])
    scene = math.log(math.exp(1) + 2) - 1
    none = math.log(math.exp(-2) + math.exp(3) + 1)
    found = known_loss(logits, torch.tensor([0]), nothing)
    assert float(found) == pytest.approx((scene + none) / 2)


@pytest.mark.parametrize("parameters", [6, 7])
@pytest.mark.parametrize("normalise", [False, True])
def test_coding_comes_back(parameters, normalise):
    rng = np.random.default_rng(0)
    positions = [rng.normal(size=(20, 3)) * 3 + 1e5, rng.normal(size=(30, 3))]
    quaternions = [Rotation.random(n, rng).as_quat() for n in (20, 30)]
    coding = PoseCoding.fit(positions, quaternions, normalise, normalise)
    scene = torch.tensor([0] * 20 + [1] * 30)
    position = torch.tensor(np.concatenate(positions))
    quaternion = torch.tensor(np.concatenate(quaternions))
    target = coding.encode(position, quaternion, scene, parameters)
    assert target.shape == (50, parameters)
    back_position, back_quaternion = coding.decode(target, scene)
    # Raw map coordinates of 1e5 m lose centimetres in float32, normalised ones do not.
    tolerance = 1e-5 if normalise else 2e-2
    torch.testing.assert_close(back_position, position, atol=tolerance, rtol=0)
    same = (back_quaternion * quaternion).sum(1).abs()
    torch.testing.assert_close(same, torch.ones_like(same), atol=1e-6, rtol=0)


def test_network_reads_the_true_scene_or_the_most_likely_one():
    torch.manual_seed(0)
    network = MSPN(SMALL, 3).eval()
    images = torch.randint(0, 255, (4, 3, 64, 64), dtype=torch.uint8)
    free = network(images)
    assert torch.equal(free.scene_B, free.logits_BN.argmax(1))
    told = network(images, torch.tensor([2, 1, 0, 2]))
    row = network.heads.row(1)
    feature = network.backbone(images).pooled_BF[1]
    torch.testing.assert_close(told.pose_BP[1], row["weight"] @ feature + row["bias"])


def test_counts_of_the_paper():
    # Section 4: 22 million shared; (2048 + 1) * 7 = 14,343 a scene (6 pose rows, 1 logit).
    account = parameter_account(Architecture("resnet34", feature_size=2048))
    assert 22.0e6 < account.shared < 22.5e6
    assert account.per_scene == 14_343
    assert 22.0e6 < account.posenet < 22.5e6
    assert account.ratio(10) == pytest.approx(0.10, abs=0.002)
    assert account.ratio(100) == pytest.approx(0.01, abs=0.001)
    # Section 4.1: no hidden layer, F = 512.
    assert parameter_account(Architecture("resnet34")).per_scene == 513 * 7


def test_a_shared_head_answers_alike_for_every_scene():
    torch.manual_seed(0)
    naive = MSPN(replace(SMALL, feature_size=32, neck="posenet"), 3, shared_head=True).eval()
    image = torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8)
    first, last = (naive(image, torch.tensor([i, i])).pose_BP for i in (0, 2))
    assert torch.equal(first, last)
    assert naive.heads.row(0)["weight"].shape == (6, 32)
    # PoseNet's hidden layer: nothing negative reaches the pose layer, half is dropped in training.
    assert (naive.backbone(image).pooled_BF >= 0).all()
    neck = naive.backbone.projection
    pooled = torch.rand(1, neck[0].in_features)
    kept = (neck.eval()(pooled) > 0).sum()
    assert 0 < (neck.train()(pooled) > 0).sum() < kept


def test_a_neck_leaves_the_ids_of_older_backbones_as_they_are():
    assert "neck" not in SMALL.to_json()
    posenet = replace(SMALL, feature_size=32, neck="posenet")
    assert Architecture.from_json(posenet.to_json()) == posenet
    with pytest.raises(ConfigError, match="neck posenet needs a feature_size"):
        replace(SMALL, neck="posenet")
    with pytest.raises(ModelError, match="neck 'wide' is not linear or posenet"):
        Architecture.from_json(SMALL.to_json() | {"neck": "wide"})


def test_the_tuple_loss_adds_the_loss_of_motions():
    # Two tuples of three frames; absolute errors are all 1, motions are right in the first tuple
    # and off by 2 per step in the second.
    target = torch.zeros(6, 6)
    pose = torch.ones(6, 6)
    pose[3:, 0] = torch.tensor([1.0, -1.0, 1.0])
    loss = TupleLoss(FixedPoseLoss(2.0), FixedPoseLoss(5.0), frames=3)
    absolute = 3 + 2.0 * 3
    relative = (0 + 0 + 2 + 2) / 4
    assert float(loss(pose, target, torch.zeros(6, dtype=torch.long))) == absolute + relative


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "vgg11", "squeezenet1_1"])
def test_any_torchvision_classifier_gives_a_pooled_feature(name):
    backbone = Backbone(Architecture(name)).eval()
    with torch.no_grad():
        feature = backbone(torch.zeros(1, 3, 224, 224, dtype=torch.uint8)).pooled_BF
    assert feature.shape == (1, backbone.feature_size)
    assert backbone.feature_size <= 2048


def test_backbone_id_changes_with_a_weight_and_with_the_architecture():
    torch.manual_seed(0)
    backbone = Backbone(SMALL)
    before = backbone_identity(backbone)
    assert before == backbone_identity(backbone)
    with torch.no_grad():
        next(backbone.parameters()).view(-1)[0] += 1
    assert backbone_identity(backbone) != before


def test_weights_come_from_a_file(tmp_path):
    torch.manual_seed(0)
    source, target = Backbone(SMALL), Backbone(SMALL)
    state = source.network.state_dict() | {"classifier.0.weight": torch.zeros(3)}
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    assert "w.safetensors" in load_pretrained(target, str(tmp_path / "w.safetensors"))
    torch.save(source.network.state_dict(), tmp_path / "w.pth")
    load_pretrained(target, str(tmp_path / "w.pth"))
    assert backbone_identity(source) == backbone_identity(target)


@pytest.mark.parametrize("content", [b"", b"no weights at all", b"PK\x03\x04broken"])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_broken_weights_are_one_clear_line(tmp_path, content, suffix):
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"w\.(pth|safetensors): "):
        load_pretrained(Backbone(SMALL), str(path))


def test_weights_of_another_network_are_refused(tmp_path):
    other = Backbone(Architecture("shufflenet_v2_x0_5", resize=72, crop=64))
    safetensors.torch.save_file(other.network.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="does not fit MobileNetV3"):
        load_pretrained(Backbone(SMALL), str(tmp_path / "w.safetensors"))


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return (print, ("ran",))

    (tmp_path / "w.pth").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ModelError, match=r"w\.pth"):
        load_pretrained(Backbone(SMALL), str(tmp_path / "w.pth"))


def test_an_unknown_backbone_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"resnet35.*mobilenet_v2.*resnet34"):
        Backbone(Architecture("resnet35"))
