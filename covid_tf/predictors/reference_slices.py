"""Chest-like slices by formula, in millimetres: what a model's self-check asks about.

Not a phantom to score: an axial chest with body wall, ribs, spine, mediastinum, two
lungs with vessels, and an opacity at the pleura, enough for both networks to answer
as they answer to a CT. NumPy alone, since clients without TensorFlow need them too.
"""

import numpy as np

PIXEL_MM = 1.5
_ROWS, _COLUMNS = 192, 240  # 288 x 360 mm: a chest without arms.
_EDGE_MM = 1.5  # Every border is this soft, as a CT's own resolution makes it.
_NOISE_HU = 18.0  # Standard deviation; a usual soft kernel at 5 mm.

_AIR_HU, _FAT_HU, _MUSCLE_HU, _BLOOD_HU, _BONE_HU = -1000, -95, 50, 45, 380
_LUNG_HU, _OPACITY_HU = -860, -330  # Aerated lung; ground glass with consolidation.

# How far opacities reach: most of them small, where a trained classifier is in doubt.
_EXTENTS = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.4)
# Rows and columns that hold the lungs of every slice here, as a client's crop does.
_CROP = (slice(30, 152), slice(20, 220))


def whole_slices() -> np.ndarray:
  """int16 [2, 192, 240]: a slice through the bases and one at the carina, in HU."""
  return np.stack([_slice(0.85, 0.6, seed=1), _slice(1.0, 0.3, seed=2)])


def lung_crops() -> np.ndarray:
  """int16 [8, 122, 200]: lung crops in HU, from no opacity to much of both lungs."""
  return np.stack(
    [
      _slice(0.8 + 0.03 * index, extent, seed=3 + index)[_CROP]
      for index, extent in enumerate(_EXTENTS)
    ]
  )


def _slice(height: float, extent: float, seed: int) -> np.ndarray:
  """One slice: `height` scales the lungs, `extent` in [0, 1] the opacity."""
  random = np.random.default_rng(seed)
  y = (np.arange(_ROWS)[:, np.newaxis] - (_ROWS - 1) / 2) * PIXEL_MM  # To the back.
  x = (np.arange(_COLUMNS)[np.newaxis] - (_COLUMNS - 1) / 2) * PIXEL_MM
  hu = np.full((_ROWS, _COLUMNS), float(_AIR_HU))
  _draw(hu, _FAT_HU, _inside(x, y, (0, 0), (166, 116)))
  _draw(hu, _MUSCLE_HU, _inside(x, y, (0, 0), (148, 100)))
  _draw_ribs(hu, x, y)
  lungs = np.zeros_like(hu)
  for side in (-1, 1):
    lung = _inside(x, y, (side * 68, 2), (58 * height, 84 * height))
    heart = _inside(x, y, (14, -22), (46, 44))
    lungs = np.maximum(lungs, lung * (1 - heart))
  _draw(hu, _LUNG_HU + 60 * (y / 84), lungs)  # Denser at the back, where blood sinks.
  _draw(hu, _BLOOD_HU, lungs * _vessels(x, y, random))
  _draw(
    hu,
    _OPACITY_HU + 120 * _waves(x, y, random, 24),
    lungs * _opacity(x, y, extent, random),
  )
  _draw(hu, _BLOOD_HU + 10, _inside(x, y, (18, 44), (13, 13)))  # Aorta.
  _draw(hu, _AIR_HU + 20, _inside(x, y, (-4, 12), (9, 8)))  # Trachea.
  _draw(hu, _BONE_HU - 120, _inside(x, y, (0, 74), (21, 18)))  # Vertebra.
  _draw(hu, _MUSCLE_HU - 20, _inside(x, y, (0, 96), (9, 7)))  # Its canal.
  hu += random.normal(0, _NOISE_HU, hu.shape)
  return np.clip(np.rint(hu), -1024, 3071).astype(np.int16)


def _draw_ribs(hu, x, y) -> None:
  """Pieces of a ring between muscle and lung."""
  ring = _inside(x, y, (0, 0), (140, 94)) * (1 - _inside(x, y, (0, 0), (131, 86)))
  angle = np.arctan2(y / 90, x / 136)
  _draw(hu, _BONE_HU, ring * _step(20 * (np.cos(7 * angle) - 0.2)))


def _opacity(x, y, extent, random):
  """Shares in [0, 1] of opacity: from the back and the sides inward."""
  if not extent:
    return 0.0
  depth = 1 - np.hypot(x / 128, (y - 4) / 88)  # 0 at the pleura, 1 in the middle.
  reach = (0.7 * extent - 0.1) * (0.6 + 0.4 * np.tanh(y / 50))
  return _step(60 * (reach - depth + 0.12 * _waves(x, y, random, 30)))


def _vessels(x, y, random):
  """Shares in [0, 1]: bright spots, wider near the hila."""
  share = np.zeros(np.broadcast_shapes(x.shape, y.shape))
  for _ in range(90):
    side, along = random.choice((-1, 1)), random.uniform(0, 1) ** 0.7
    centre = (side * (30 + 92 * along), random.uniform(-66, 70))
    radius = 4.2 - 3.2 * along
    share = np.maximum(share, _inside(x, y, centre, (radius, radius)))
  return share


def _waves(x, y, random, scale_mm):
  """A smooth field about in [-1, 1] whose features are `scale_mm` wide."""
  field = 0.0
  for _ in range(6):
    direction, phase = random.uniform(0, 2 * np.pi, 2)
    along = x * np.cos(direction) + y * np.sin(direction)
    field = field + np.sin(2 * np.pi * along / scale_mm / 2 + phase)
  return field / 3


def _inside(x, y, centre, radii):
  """Shares in [0, 1] of an ellipse, in millimetres, with a soft edge."""
  radius = np.hypot((x - centre[0]) / radii[0], (y - centre[1]) / radii[1])
  return _step((1 - radius) * min(radii))


def _step(distance_mm):
  return np.clip(distance_mm / _EDGE_MM + 0.5, 0, 1)


def _draw(hu, value, share) -> None:
  hu += share * (value - hu)
