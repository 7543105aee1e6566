"""The packaged model and bag keep the demo's promises, and the demo notices where they do not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mspn_ros.commands.run import replay_offline
from mspn_ros.datasets.bags import BagReader
from mspn_ros.demo import BAG, MODEL, largest_difference, make_checks
from mspn_ros.evaluation.replay import ground_truth
from mspn_ros.inference.localizer import Localizer
from mspn_ros.node.parameters import parameter_table_markdown

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def replayed():
    localizer = Localizer.load(MODEL, "cpu")
    with BagReader(BAG) as bag:
        truth = ground_truth(bag, localizer.rows, None)
        return replay_offline(bag, localizer, truth), localizer.rows


def test_model_and_bag_stay_small():
    size = sum(path.stat().st_size for path in (*MODEL.iterdir(), BAG))
    assert size < 8_000_000


def test_every_promise_holds_offline(replayed):
    done, rows = replayed
    broken = [check for check in make_checks(done, done, rows) if not check.holds]
    assert not broken


def test_each_broken_promise_is_noticed(replayed):
    done, rows = replayed

    def spoilt(change, share):
        count = int(share * len(done.answers))
        answers = [change(a) for a in done.answers[:count]] + done.answers[count:]
        return replace(done, answers=answers)

    def unanswered(answer):
        unknown = replace(answer.estimate, scene="unknown", position=None, quaternion=None)
        return replace(answer, estimate=unknown)

    def moved(answer):
        return replace(
            answer, estimate=replace(answer.estimate, position=answer.estimate.position + 1e-3)
        )

    def failing(changed):
        return [check.promise for check in make_checks(changed, done, rows) if not check.holds]

    assert "frames answered >= 95 %" in failing(spoilt(unanswered, 0.1))
    assert failing(spoilt(moved, 0.01)) == ["live poses equal offline poses of the same stamps"]


def test_a_live_frame_that_was_overtaken_is_not_compared(replayed):
    done, _ = replayed
    overtaken = [replace(answer, latency_ms=None) for answer in done.answers[:5]]
    worst, compared = largest_difference([*overtaken, *done.answers[5:]], done.answers)
    assert (worst, compared) == (0.0, len(done.answers) - 5)
    assert np.isfinite(worst)


def test_the_readme_has_the_node_parameters():
    assert parameter_table_markdown() in (ROOT / "README.md").read_text()
