"""Multi-Scene PoseNet camera localization for ROS 2."""

__version__ = "0.1.0"
