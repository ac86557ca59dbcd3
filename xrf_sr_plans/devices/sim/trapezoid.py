"""Moves with a trapezoidal profile: speed up evenly, keep the velocity, brake evenly.

A move too short to reach its velocity is a triangle. Lengths may have any unit, as long as it is
the same for distances and velocities.
"""

from __future__ import annotations

import math

import numpy as np


def move_duration_s(distance: float, velocity: float, acceleration_s: float) -> float:
    """Return how long a move takes.

    Parameters
    ----------
    distance
        Length of the move, not negative.
    velocity
        Velocity between speeding up and braking, per second.
    acceleration_s
        Time to reach the velocity from rest.
    """
    ramps = velocity * acceleration_s
    if distance < ramps:
        return 2 * math.sqrt(distance * acceleration_s / velocity)
    return 2 * acceleration_s + (distance - ramps) / velocity


def distance_moved(time_s: float, distance: float, velocity: float, acceleration_s: float) -> float:
    """Return how far a move has come `time_s` after its start; parameters as `move_duration_s`."""
    total_s = move_duration_s(distance, velocity, acceleration_s)
    rate = velocity / acceleration_s
    ramp_s = min(acceleration_s, total_s / 2)
    if time_s >= total_s:
        return distance
    if time_s <= ramp_s:
        return rate * time_s**2 / 2
    if time_s >= total_s - ramp_s:
        return distance - rate * (total_s - time_s) ** 2 / 2
    return rate * ramp_s**2 / 2 + rate * ramp_s * (time_s - ramp_s)


def time_to_reach_s(distance: np.ndarray, velocity: float, acceleration_s: float) -> np.ndarray:
    """Return when an axis that starts from rest, and doesn't brake, reaches each distance."""
    ramp = velocity * acceleration_s / 2
    speeding_up = np.sqrt(2 * np.clip(distance, 0, None) * acceleration_s / velocity)
    return np.where(distance < ramp, speeding_up, acceleration_s + (distance - ramp) / velocity)


def distance_reached(time_s: np.ndarray, velocity: float, acceleration_s: float) -> np.ndarray:
    """Return how far an axis that starts from rest, and doesn't brake, has come at each time."""
    speeding_up = velocity / acceleration_s * time_s**2 / 2
    ramp = velocity * acceleration_s / 2
    return np.where(
        time_s < acceleration_s, speeding_up, ramp + velocity * (time_s - acceleration_s)
    )
