# SPDX-FileCopyrightText: 2026 mspn_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A lifecycle node that tells why a transition fails, and goes on after any request."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from mspn_ros.records import MspnError


class ManagedNode(LifecycleNode):
    """The transitions of a node, each of which is one step that may raise.

    rclpy takes an exception in a transition for an error and says nothing of it; what rcl raises
    over a transition that the state does not have ends the process. Here either is logged. A step
    that raises ``MspnError`` fails: the node stays in the state it was in. Anything else is a bug:
    the node becomes unconfigured, and can be configured again.

    ``failure`` says why the last transition failed, empty if it did not.
    """

    def __init__(self, name: str, namespace: str) -> None:
        super().__init__(name, namespace=namespace)
        self.failure = ""
        self._change_state = self._service_change_state.callback
        self._service_change_state.callback = self._on_change_state

    # The steps.

    def configure(self) -> None:
        """Get ready; what a failure leaves behind, ``release`` takes away."""

    def activate(self) -> None:
        """Begin to work; what a failure leaves behind, ``deactivate`` takes away."""

    def deactivate(self) -> None:
        """Stop working; safe in any state."""

    def release(self) -> None:
        """Stop working and let everything go; safe in any state."""

    @property
    def state(self) -> str:
        """Its label: unconfigured, inactive, active, finalized, or that of a transition."""
        return str(self._state_machine.current_state[1])

    def bring_up(self) -> bool:
        """Configure and activate; False, with ``failure`` set and logged, if either fails."""
        done = TransitionCallbackReturn.SUCCESS
        return self.trigger_configure() == done and self.trigger_activate() == done

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See ``configure``."""
        result = self._guarded("configure", self.configure)
        if result != TransitionCallbackReturn.SUCCESS:
            self.release()
        return result

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See ``activate``."""
        super().on_activate(state)
        result = self._guarded("activate", self.activate)
        if result != TransitionCallbackReturn.SUCCESS:
            self.deactivate()
            super().on_deactivate(state)
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See ``deactivate``."""
        result = self._guarded("deactivate", self.deactivate)
        super().on_deactivate(state)
        return result

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See ``release``."""
        return self._guarded("cleanup", self.release)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """As cleanup, from any state."""
        return self._guarded("shutdown", self.release)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After a bug in a transition: back to unconfigured; ``failure`` stays."""
        try:
            self.release()
        # Everything: the node would be finalized, and nobody could configure it again.
        except Exception:
            self.get_logger().error(f"release failed by a bug:\n{traceback.format_exc()}")
        return TransitionCallbackReturn.SUCCESS

    def _guarded(self, name: str, step: Callable[[], None]) -> TransitionCallbackReturn:
        try:
            step()
        except MspnError as error:
            self.failure = f"{name}: {error}"
            self.get_logger().error(self.failure)
            return TransitionCallbackReturn.FAILURE
        except Exception as error:
            self.failure = f"{name}: {type(error).__name__}: {error}"
            self.get_logger().error(f"{name} failed by a bug:\n{traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR
        self.failure = ""
        return TransitionCallbackReturn.SUCCESS

    def _on_change_state(self, request: Any, response: Any) -> Any:
        state = self.state
        known = {one[0]: one[1] for one in self._state_machine.available_transitions}
        label, number = request.transition.label, request.transition.id
        if label in known.values() if label else number in known:
            return self._change_state(request, response)
        self.get_logger().warning(
            f"change_state: no transition {label or number!r} from {state}, which has "
            f"{', '.join(known.values()) or 'none'}"
        )
        response.success = False
        return response
