# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Quality of service: what topics have, how a user changes it, and who does not go with it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from rcl_interfaces.msg import SetParametersResult
from rclpy.duration import Infinite
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.exceptions import (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    ParameterException,
)
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    LivelinessPolicy,
    QoSCompatibility,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from rclpy.qos_overriding_options import InvalidQosOverridesError, QoSOverridingOptions

from mspn_ros.node.declared_parameters import given_at_start
from mspn_ros.records import ConfigError

_MOST_DEPTH = 1000
_NAMELESS = "someone"
# Endpoints that are named of one topic.
_MOST_TOLD = 3
_POLICIES = (QoSPolicyKind.RELIABILITY, QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH)
_PREFIX = "qos_overrides."


class _Topic(NamedTuple):
    """A topic of this node, the QoS that it has here, and whether this node publishes there."""

    name: str
    qos: QoSProfile
    publishes: bool


class Mismatches:
    """Makes a node's publishers and subscriptions, and watches who does not go with them.

    Reliability, history and depth of each topic can be set at start by the parameters
    ``qos_overrides.<topic>.publisher.<policy>`` (or ``subscription``), as everywhere in ROS 2.
    Durability cannot: a late reader of a pose that is kept would take an old one for new.
    """

    def __init__(self, node: Any, log: Callable[[str, str], None]) -> None:
        """``log`` gets warnings, with a key for each kind of trouble."""
        self._node, self._log = node, log
        self._topics: dict[int, _Topic] = {}

    def publisher(self, message_type: Any, topic: str, qos: QoSProfile) -> Any:
        """A lifecycle publisher.

        Raises:
            ConfigError: an override that does not go.
        """
        events = PublisherEventCallbacks(incompatible_qos=lambda event: self.found)
        return self._made(
            topic,
            True,
            qos,
            lambda profile, options: self._node.create_lifecycle_publisher(
                message_type,
                topic,
                profile,
                event_callbacks=events,
                qos_overriding_options=options,
            ),
        )

    def subscription(
        self, message_type: Any, topic: str, qos: QoSProfile, callback: Callable[[Any], None]
    ) -> Any:
        """A subscription whose callback gets serialized messages.

        Raises:
            ConfigError: an override that does not go.
        """
        events = SubscriptionEventCallbacks(incompatible_qos=lambda event: self.found)
        return self._made(
            topic,
            False,
            qos,
            lambda profile, options: self._node.create_subscription(
                message_type,
                topic,
                callback,
                profile,
                event_callbacks=events,
                qos_overriding_options=options,
                # rclpy would end the node over a message that cannot be deserialized, and an
                # image that is overtaken need not be deserialized at all.
                raw=True,
            ),
        )

    def forget(self, endpoint: Any) -> None:
        """A publisher or subscription is destroyed."""
        self._topics.pop(id(endpoint), None)

    @property
    def found(self) -> dict[str, list[str]]:
        """Topics that someone does not go with now, and of each who, and what to do about it.

        Logs it as well. The middleware tells when it meets somebody, whose name may come later:
        looked at again for each diagnostics message, it is there.
        """
        texts: dict[str, list[str]] = {}
        for topic, text in sorted(set(self._find())):
            texts.setdefault(topic, []).append(text)
        for topic, said in texts.items():
            # Whoever is on the network can make many.
            texts[topic] = said[:_MOST_TOLD]
            if not said[0].startswith(_NAMELESS):
                self._log(f"qos {topic}", "; ".join(texts[topic]))
        return texts

    def warn_of_unknown_overrides(self) -> None:
        """Log overrides that were given at start for none of the topics that there are by now."""
        given = [name for name in given_at_start(self._node) if name.startswith(_PREFIX)]
        unknown = [name for name in given if not self._node.has_parameter(name)]
        if unknown:
            topics = ", ".join(
                f"{_PREFIX}{topic.name}.{'publisher' if topic.publishes else 'subscription'}"
                for topic in self._topics.values()
            )
            self._node.get_logger().warning(
                f"unknown parameters are ignored: {', '.join(unknown)}; there are reliability, "
                f"history and depth of {topics}"
            )

    def _made(
        self,
        topic: str,
        publishes: bool,
        qos: QoSProfile,
        make: Callable[[QoSProfile, QoSOverridingOptions], Any],
    ) -> Any:
        # rclpy changes the profile that it is given.
        profile = copy.copy(qos)
        try:
            endpoint = make(profile, self._options(topic, publishes))
        # RuntimeError is what rclpy raises for a policy's value that is none.
        except (
            InvalidQosOverridesError,
            InvalidParameterTypeException,
            InvalidParameterValueException,
            ParameterException,
            RuntimeError,
            AssertionError,
        ) as error:
            raise ConfigError(
                f"{_PREFIX}{self._node.resolve_topic_name(topic)}: {error}; reliability is "
                "reliable or best_effort, history keep_last, depth "
                f"1 to {_MOST_DEPTH}"
            ) from error
        name = endpoint.topic_name if not publishes else endpoint.topic
        resolved = self._node.resolve_topic_name(name)
        self._topics[id(endpoint)] = _Topic(resolved, _spelled_out(profile), publishes)
        return endpoint

    def _options(self, topic: str, publishes: bool) -> QoSOverridingOptions:
        policies = _POLICIES
        if not publishes:
            # A declared one cannot be changed any more, and image_qos may be set meanwhile.
            start = f"{_PREFIX}{self._node.resolve_topic_name(topic)}.subscription."
            given = given_at_start(self._node)
            policies = tuple(one for one in policies if start + one.name.lower() in given)
        return QoSOverridingOptions(policies, callback=_check)

    def _find(self) -> Iterator[tuple[str, str]]:
        for topic in list(self._topics.values()):
            if topic.publishes:
                others = self._node.get_subscriptions_info_by_topic(topic.name)
            else:
                others = self._node.get_publishers_info_by_topic(topic.name)
            for other in others:
                pair = (topic.qos, other.qos_profile)
                offered, asked = pair if topic.publishes else reversed(pair)
                compatible, reason = qos_check_compatible(offered, asked)
                if compatible == QoSCompatibility.ERROR:
                    who = f"{other.node_namespace.rstrip('/')}/{other.node_name}"
                    who = _NAMELESS if "_UNKNOWN_" in who else who
                    yield topic.name, _text(topic, who, offered, asked, reason)


def _spelled_out(qos: QoSProfile) -> QoSProfile:
    """With what the middleware makes of policies that are left open, as it tells of others."""
    if not qos.deadline.nanoseconds:
        qos.deadline = Infinite
    if not qos.liveliness_lease_duration.nanoseconds:
        qos.liveliness_lease_duration = Infinite
    if qos.liveliness == LivelinessPolicy.SYSTEM_DEFAULT:
        qos.liveliness = LivelinessPolicy.AUTOMATIC
    return qos


def _check(qos: QoSProfile) -> SetParametersResult:
    if qos.history != HistoryPolicy.KEEP_LAST:
        return SetParametersResult(reason="history can only be keep_last: memory is bounded")
    if not 1 <= qos.depth <= _MOST_DEPTH:
        return SetParametersResult(reason=f"depth {qos.depth} is out of range")
    return SetParametersResult(successful=True)


def _text(topic: _Topic, who: str, offered: QoSProfile, asked: QoSProfile, reason: str) -> str:
    kind = "publisher" if topic.publishes else "subscription"
    override = f"{_PREFIX}{topic.name}.{kind}.reliability"
    best_effort = ReliabilityPolicy.BEST_EFFORT
    if offered.reliability == best_effort and asked.reliability == ReliabilityPolicy.RELIABLE:
        if topic.publishes:
            return (
                f"{who} asks for reliable {topic.name}, which is best effort by {override}: "
                "remove that, or subscribe best effort"
            )
        return (
            f"{who} publishes {topic.name} best effort, this node asks for reliable: set image_qos "
            f"(or {override}) to best_effort"
        )
    if asked.durability == DurabilityPolicy.TRANSIENT_LOCAL != offered.durability:
        return (
            f"{who} asks for transient_local {topic.name}, which is volatile, so that nobody takes "
            "an old pose for a new one: subscribe with durability volatile"
        )
    return (
        f"{who} and this node do not agree on the QoS of {topic.name}: "
        f"{reason.removeprefix('ERROR: ').strip('; ')}; change it there"
    )
