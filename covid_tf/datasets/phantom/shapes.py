"""Contours and distances that the organs are made of; millimetres throughout."""

import numpy as np

_ANGLES = 720


def ramp(value, start, end):
  """0 below start, 1 above end, smooth between."""
  t = np.clip((value - start) / (end - start), 0, 1)
  return t * t * (3 - 2 * t)


def smooth_min(a, b, blend):
  """min(a, b) with the corner rounded over `blend`: organs that touch merge."""
  h = np.maximum(blend - np.abs(a - b), 0) / blend
  return np.minimum(a, b) - h * h * (blend / 4)


def smooth_max(a, b, blend):
  """max(a, b) with the corner rounded over `blend`."""
  return -smooth_min(-a, -b, blend)


def ellipse(x, y, centre, radii, tilt=0.0):
  """Approximate signed distance to an ellipse, negative inside."""
  dx, dy = x - centre[0], y - centre[1]
  if tilt:
    cos, sin = np.cos(tilt), np.sin(tilt)
    dx, dy = cos * dx + sin * dy, cos * dy - sin * dx
  norm = np.sqrt((dx / radii[0])**2 + (dy / radii[1])**2)
  return (norm - 1) * min(radii)


def window(x, y, centre, reach):
  """(rows, columns) slices of the plane that hold centre +- reach.

  Args:
    x, y: float32 [H, W], coordinates, bent by a few millimetres at most.
    centre, reach: (x, y) in millimetres.
  """
  spans = []
  for line, middle, half in ((y[:, y.shape[1] // 2], centre[1], reach[1]),
                             (x[x.shape[0] // 2], centre[0], reach[0])):
    first, last = np.searchsorted(line, (middle - half - 12, middle + half + 12))
    spans.append(slice(int(first), int(last)))
  return tuple(spans)


def mix(hu, value, share) -> None:
  """Moves hu towards value by share, in place: how every organ is drawn."""
  hu += (value - hu) * share


class Polar:
  """A slice in polar coordinates, for contours given by radius over angle.

  The angle is 0 at the back, positive towards the patient's left, +-pi in front.

  Attributes:
    angles: float32 [720], where a contour is tabulated.
    radius: float32 [H, W], distance from the centre.
  """

  angles = np.linspace(-np.pi, np.pi, _ANGLES, dtype=np.float32)

  def __init__(self, x, y, centre=(0.0, 0.0)):
    dx, dy = x - centre[0], y - centre[1]
    self.radius = np.hypot(dx, dy)
    angle = np.arctan2(dx, dy)
    self._index = np.rint(
        (angle + np.pi) * ((_ANGLES - 1) / (2 * np.pi))).astype(np.int16)

  def table(self, values):
    """Values float32 [720] over the angle, spread to [H, W]."""
    return np.take(values.astype(np.float32), self._index)

  def outside(self, contour):
    """Radial distance to a contour float32 [720], negative inside."""
    return self.radius - self.table(contour)


def superellipse(half_width, half_depth, exponent):
  """float32 [720]: radius of a superellipse over the angle."""
  sin, cos = np.abs(np.sin(Polar.angles)), np.abs(np.cos(Polar.angles))
  return ((sin / half_width)**exponent
          + (cos / half_depth)**exponent)**(-1 / exponent)
