"""What ``mspn bench node`` offers to the node and what it reports: plain records."""

from __future__ import annotations

from dataclasses import dataclass

from mspn_ros.records import MOST_CAMERAS, ConfigError

TRANSPORTS = ("raw", "compressed")
MAX_RATE = "max"
# What "max" offers, in multiples of what the node can answer.
OVERLOAD = 3.0
_MOST_HZ = 1000.0
_LEAST_SIDE, _MOST_SIDE = 16, 4096

Percentiles = dict[str, float] | None


@dataclass(frozen=True, slots=True)
class Plan:
    """Loads to measure: every rate for every size, number of cameras and transport, each for
    ``seconds``.

    ``transports`` raw, compressed; ``cameras`` at once; ``sizes`` (width, height) in pixels;
    ``rates`` in Hz of each camera, or ``max``, which comes last whatever its place: OVERLOAD times
    what the node answered a second at its fastest, or could have by the time it takes for a frame
    when none waits, by all cameras together.

    Raises:
        ConfigError: nothing to measure, or a value that no camera has.
    """

    transports: tuple[str, ...] = TRANSPORTS
    sizes: tuple[tuple[int, int], ...] = ((640, 480), (1920, 1080))
    rates: tuple[str, ...] = ("30", "60", "120", MAX_RATE)
    seconds: float = 10.0
    cameras: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        """Check the values."""
        for transport in self.transports:
            if transport not in TRANSPORTS:
                raise ConfigError(
                    f"--transports: {transport!r} is not one of {', '.join(TRANSPORTS)}"
                )
        for width, height in self.sizes:
            if not _LEAST_SIDE <= min(width, height) <= max(width, height) <= _MOST_SIDE:
                raise ConfigError(
                    f"--sizes: a side of {width}x{height} is not {_LEAST_SIDE} to {_MOST_SIDE}"
                )
        for rate in self.rates:
            if rate != MAX_RATE and not 1 <= _number(rate) <= _MOST_HZ:
                raise ConfigError(f"--rates: {rate!r} is not 1 to {_MOST_HZ:g}, nor {MAX_RATE}")
        for count in self.cameras:
            if not 1 <= count <= MOST_CAMERAS:
                raise ConfigError(f"--cameras: {count} is not 1 to {MOST_CAMERAS}")
        if not 0.5 <= self.seconds <= 3600:
            raise ConfigError(f"--seconds: {self.seconds:g} is not 0.5 to 3600")

    @property
    def ordered_rates(self) -> list[str]:
        """Each once, ``max`` last: it is made from what the others find."""
        return sorted(dict.fromkeys(self.rates), key=lambda rate: rate == MAX_RATE)

    @property
    def loads(self) -> int:
        """How many are measured."""
        kinds = len(self.transports) * len(self.cameras)
        return kinds * len(self.sizes) * len(self.ordered_rates)


@dataclass(frozen=True, slots=True)
class NodeResult:
    """Of one load; the keys of ``mspn bench node --json``.

    Offered: ``asked_hz`` is what all cameras should have published a second, ``offered_hz`` what
    they did. Frames: published = received + lost, received = answered + overtaken + rejected, in
    all and, in ``by_camera``, of each; ``answered_hz`` were answered a second. ``poses`` came back
    on the robot's pose topic, where several cameras share one.

    Times are p50 and p95, of age and latency p99 too, in milliseconds; null where no frame was
    answered. ``age_ms``: from publishing an image to receiving its pose (its answer, where it has
    none), in two other processes than the node's. ``latency_ms``: in the node, from the image's
    arrival to its published answer; ``waiting_ms``, ``decode_ms``, ``localize_ms`` and
    ``publish_ms`` are what it is made of, ``ros_adds_ms`` all of it but ``localize_ms``; of the
    last thousand answered frames. ``age_ratio``, ``latency_ratio``: in medians of
    ``localize_ms``.

    ``memory_start_mb``, ``memory_end_mb``: the node's resident memory before the first frame and
    when it has dealt with the last, without shared-memory segments, which DDS fills once.
    """

    transport: str
    width: int
    height: int
    rate: str
    cameras: int
    seconds: float
    asked_hz: float
    offered_hz: float
    published: int
    received: int
    answered: int
    overtaken: int
    rejected: int
    lost: int
    poses: int
    by_camera: dict[str, dict[str, int]]
    answered_hz: float
    age_ms: Percentiles
    latency_ms: Percentiles
    waiting_ms: Percentiles
    decode_ms: Percentiles
    localize_ms: Percentiles
    publish_ms: Percentiles
    ros_adds_ms: Percentiles
    age_ratio: Percentiles
    latency_ratio: Percentiles
    memory_start_mb: float
    memory_end_mb: float
    model: str
    device: str
    engine: str


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
