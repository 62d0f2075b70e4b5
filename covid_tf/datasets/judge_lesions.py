"""Opacities that judge a network: another painter than the one that trained it.

A network that learned lesions of one painter may have learned that painter. What is
painted here is built otherwise, and shares no code with it: secondary pulmonary lobules
are cells around scattered points, 10 to 20 mm wide (Webb, Radiology 2006;239:322, has
10 to 25 mm), and an opacity is the set of voxels that its seed reaches first, lobule by
lobule or as a ball, flattened along the pleura. It replaces a share of the air by
water: 0.12 to 0.55 for ground glass, nearly all for consolidation. All of it is one
body in millimetres, averaged over the thickness of each slice.

Of the chest everything stays: its noise is added again to what was replaced, vessels
show through ground glass as the denser part that they are, and the lumen of airways
stays open. Densities may also be those of real lesions (`judge_textures`).
"""

from collections.abc import Sequence
import dataclasses

import numpy as np
from scipy import ndimage
from scipy import spatial

from covid_tf import volume
from covid_tf.datasets import judge_grid
from covid_tf.datasets import judge_textures

GROUND_GLASS = 'ground glass'
CRAZY_PAVING = 'crazy paving'
MIXED = 'ground glass with consolidation'
CONSOLIDATION = 'consolidation'
REVERSED_HALO = 'reversed halo'
BAND = 'subpleural band'
TRANSPLANTED = 'texture of a real lesion'
# How often each is drawn; ours, after the frequencies in reviews of COVID-19 CT (ground
# glass in most, reversed halo in few).
_ODDS = {
  GROUND_GLASS: 0.38,
  CRAZY_PAVING: 0.14,
  MIXED: 0.2,
  CONSOLIDATION: 0.13,
  REVERSED_HALO: 0.06,
  BAND: 0.09,
}
KINDS = (*_ODDS, TRANSPLANTED)

# Shares of air replaced by water; 0.12 raises lung of -850 HU by 105 HU. Ours.
FAINTEST, DENSEST_GROUND_GLASS = 0.12, 0.55
AMOUNT_CM3 = (1.5, 500.0)
_LARGEST_SHARE = 0.45  # Of the lungs that all opacities may take.
_SMALLEST_FOCUS_CM3 = 0.25

_LOBULE_MM = (10.0, 20.0)
_PAVING_MM = (5.0, 9.0)  # Lines within lobules.
_PLACES_TRIED = 4
# Below this rise over so many millimetres nobody sees an opacity: vessels fill it.
_SEEN_HU, _SEEN_OVER_MM = 40.0, 2.0


@dataclasses.dataclass(frozen=True)
class Implanted:
  """A chest with opacities.

  Attributes:
    hu: int16 [slice, row, column], HU.
    lesion_mask: uint8 [slice, row, column], 1 in opacities, inside the lung mask.
    kinds: of each opacity, of `KINDS`.
    skipped: opacities left out, since they would have left their lung.
  """

  hu: np.ndarray
  lesion_mask: np.ndarray
  kinds: tuple[str, ...]
  skipped: int


def implant(
  hu: np.ndarray,
  lung_mask: np.ndarray,
  spacing_mm: tuple[float, float, float],
  random: np.random.Generator,
  amount_cm3: tuple[float, float] = AMOUNT_CM3,
  textures: Sequence[judge_textures.Texture] = (),
) -> Implanted:
  """Paints opacities into a chest.

  Args:
    hu: int16 [slice, row, column], HU; slice 0 the lowest, rows from the front to the
      back, as `study.of_volume` turns them. Not changed.
    lung_mask: [slice, row, column], nonzero inside the lungs.
    spacing_mm: between (slices, rows, columns).
    random: source of every choice.
    amount_cm3: smallest and largest volume of all opacities together; drawn with equal
      odds for each factor, and at most 0.45 of the lungs.
    textures: of real lesions; every second opacity takes its density from one of them.

  Returns:
    The chest with its opacities.

  Raises:
    errors.NoLungsError: the lungs hold less than 100 cm³.
  """
  grid = judge_grid.Grid.around(lung_mask, spacing_mm)
  lungs = judge_grid.Lungs.on(grid, hu, lung_mask)
  foci = _draw_foci(lungs, amount_cm3, bool(textures), random)
  opacity = _Opacity.none(grid.shape)
  kinds, skipped = [], 0
  for kind, focus_cm3 in foci:
    if _add_focus(opacity, lungs, kind, focus_cm3, random):
      kinds.append(kind)
    else:
      skipped += 1
  texture = textures[int(random.integers(len(textures)))] if textures else None
  blur = random.uniform(0.4, 1.0) / judge_grid.STEP_MM
  for field in (opacity.water, opacity.transplanted):
    if field.any():
      ndimage.gaussian_filter(field, blur, output=field)
  painted, lesion_mask = _composed(hu, lung_mask, grid, lungs, opacity, texture, random)
  return Implanted(painted, lesion_mask, tuple(kinds), skipped)


@dataclasses.dataclass(frozen=True)
class _Opacity:
  """What is painted, on the grid; changed while opacities are added.

  Attributes:
    water: float32, share of the air that is replaced, in [0, 1].
    transplanted: float32, where that share is a real lesion's, in [0, 1].
    member: float32, how far a point belongs to an opacity, in [0, 1].
  """

  water: np.ndarray
  transplanted: np.ndarray
  member: np.ndarray

  @classmethod
  def none(cls, shape) -> '_Opacity':
    return cls(*(np.zeros(shape, np.float32) for _ in range(3)))


def _draw_foci(lungs, amount_cm3, with_textures, random) -> list[tuple[str, float]]:
  """(kind, cm³) of each opacity, the largest first."""
  low, high = amount_cm3
  high = max(low, min(high, _LARGEST_SHARE * lungs.volume_cm3))
  total = float(np.exp(random.uniform(np.log(low), np.log(high))))
  count = int(np.clip(np.exp(random.normal(np.log(3 + total**0.5), 0.8)), 1, 48))
  shares = np.sort(random.dirichlet(np.full(count, 0.8)))[::-1]
  sizes = total * shares
  sizes = sizes[sizes >= _SMALLEST_FOCUS_CM3] if count > 1 else sizes
  # Opacities of one patient resemble one another: two or three kinds a patient.
  names = random.choice(list(_ODDS), min(3, count), p=list(_ODDS.values()))
  kinds = random.choice(names, len(sizes))
  if with_textures:
    kinds = np.where(random.random(len(sizes)) < 0.5, TRANSPLANTED, kinds)
  return [(str(kind), float(size)) for kind, size in zip(kinds, sizes)]


def _add_focus(opacity, lungs, kind, focus_cm3, random) -> bool:
  """Adds one opacity; whether a place was found where its lung holds it."""
  radius_mm = (focus_cm3 * 1000 * 3 / (4 * np.pi)) ** (1 / 3)
  reach = int(np.ceil((1.9 * radius_mm + 12.0) / judge_grid.STEP_MM))
  count = max(1, round(focus_cm3 * 1000 / judge_grid.STEP_MM**3))
  for _ in range(_PLACES_TRIED):
    start = lungs.draw_point(random)
    box = tuple(
      slice(max(0, place - reach), min(side, place + reach + 1))
      for place, side in zip(start, lungs.inside.shape)
    )
    own = lungs.piece[box] == lungs.piece[start]
    if own.sum() < 1.3 * count:
      continue
    focus = _Focus.around(lungs, start, box, own, radius_mm)
    member, water = _grown(focus, kind, count, random)
    np.maximum(opacity.member[box], member, out=opacity.member[box])
    field = opacity.transplanted if kind == TRANSPLANTED else opacity.water
    np.maximum(field[box], member * water, out=field[box])
    return True
  return False


@dataclasses.dataclass(frozen=True)
class _Focus:
  """Where one opacity may grow.

  Attributes:
    own: bool [slice, row, column], points of its lung within reach.
    place_mm: float32 [3, n], of the points in `own`, from the seed.
    depth_mm: float32 [n], below the pleura.
    seed_depth_mm: of the seed.
    radius_mm: of a ball of its volume.
  """

  own: np.ndarray
  place_mm: np.ndarray
  depth_mm: np.ndarray
  seed_depth_mm: float
  radius_mm: float

  @classmethod
  def around(cls, lungs, start, box, own, radius_mm) -> '_Focus':
    corner = np.array([place - part.start for place, part in zip(start, box)])
    place_mm = (np.array(np.nonzero(own)) - corner[:, np.newaxis]) * judge_grid.STEP_MM
    return cls(
      own,
      place_mm.astype(np.float32),
      lungs.depth_mm[box][own],
      float(lungs.depth_mm[start]),
      radius_mm,
    )

  def noise(self, octaves_mm: Sequence[float], random) -> np.ndarray:
    """float32 [n]: a fractal, zero mean and unit deviation over the points."""
    total = np.zeros(self.own.shape, np.float32)
    for octave_mm in octaves_mm:  # Amplitude as wide as the octave: 1 / f.
      total += octave_mm**0.7 * _octave(self.own.shape, octave_mm, random)
    values = total[self.own]
    return (values - values.mean()) / max(float(values.std()), 1e-6)


def _octave(shape, wide_mm, random) -> np.ndarray:
  """float32: random values `wide_mm` apart, linear between them."""
  step = max(1.0, wide_mm / judge_grid.STEP_MM)
  values = random.standard_normal(
    [int(side / step) + 3 for side in shape], dtype=np.float32
  )
  for axis, side in enumerate(shape):
    place = np.arange(side) / step + random.random()
    below = place.astype(int)
    share = (place - below).astype(np.float32)
    share = share.reshape([-1 if other == axis else 1 for other in range(3)])
    low = np.take(values, below, axis)
    values = low + share * (np.take(values, below + 1, axis) - low)
  return values


def _grown(focus, kind, count, random) -> tuple[np.ndarray, np.ndarray]:
  """(membership, share of air replaced) of an opacity of `count` points.

  Both float32 on the focus's box, in [0, 1].
  """
  radius_mm = focus.radius_mm
  flat = random.uniform(20, 60) if kind == BAND else random.uniform(0, 2.5)
  stretch = np.exp(random.normal(0, 0.22, 3)).astype(np.float32)[:, np.newaxis]
  own_mm = np.sqrt(
    ((focus.place_mm * stretch) ** 2).sum(0)
    + flat * (focus.depth_mm - focus.seed_depth_mm) ** 2
  )
  lobule, lobules_mm = _lobules(focus, random)
  # When each point is reached: as a ball, and lobule by lobule.
  of_lobule = random.uniform(0.0, 0.7) if kind != BAND else 0.2
  uneven = np.exp(random.normal(0, 0.18, len(lobules_mm))).astype(np.float32)
  reached = (1 - of_lobule) * own_mm + of_lobule * (lobules_mm * uneven)[lobule]
  ragged = random.uniform(0.1, 0.35) * radius_mm
  reached += ragged * focus.noise((1.6 * radius_mm, 0.6 * radius_mm, 4.0), random)
  limit = float(np.partition(reached, count - 1)[count - 1])
  soft_mm = np.exp(random.uniform(np.log(1.2), np.log(0.25 * radius_mm + 2.5)))
  member = np.clip((limit - reached) / soft_mm + 0.5, 0, 1)
  inner = np.clip((limit - reached) / max(limit - float(reached.min()), 1e-3), 0, 1)
  water = _density(focus, kind, inner, lobule, len(lobules_mm), random)
  fields = np.zeros((2, *focus.own.shape), np.float32)
  fields[:, focus.own] = member, np.clip(water, 0.04, 0.97)
  return fields[0], fields[1]


def _lobules(focus, random) -> tuple[np.ndarray, np.ndarray]:
  """(lobule of each point, distance of each lobule's middle from the seed in mm)."""
  middles = _scattered(focus, random.uniform(*_LOBULE_MM), random)
  bent = focus.place_mm + np.stack([focus.noise((9.0, 4.0), random) for _ in range(3)])
  _, lobule = spatial.cKDTree(middles).query(bent.T)
  return lobule, np.linalg.norm(middles, axis=1).astype(np.float32)


def _scattered(focus, wide_mm, random) -> np.ndarray:
  """float64 [k, 3]: points about `wide_mm` apart, over the box of the focus."""
  low, high = focus.place_mm.min(1), focus.place_mm.max(1)
  cells = np.maximum(1, np.rint((high - low) / wide_mm)).astype(int)
  corners = np.indices(cells).reshape(3, -1).T
  places = corners + random.uniform(0.05, 0.95, corners.shape)
  return low + places * (high - low) / cells


def _density(focus, kind, inner, lobule, lobules, random) -> np.ndarray:
  """float32 [n]: the share of air that water replaces.

  Args:
    focus, kind: of the opacity.
    inner: float32 [n], 0 at its edge and 1 at its seed.
    lobule: int [n] below `lobules`.
    lobules: how many there are.
    random: source of every choice.
  """
  span = np.log(DENSEST_GROUND_GLASS / FAINTEST)
  glass = FAINTEST * np.exp(span * random.random())
  by_lobule = np.exp(random.normal(0, 0.16, lobules)).astype(np.float32)[lobule]
  grain = 1 + random.uniform(0.08, 0.45) * focus.noise((12.0, 6.0, 3.0), random)
  water = glass * by_lobule * np.clip(grain, 0.3, 2)
  if kind == TRANSPLANTED:
    return np.ones_like(water)
  if kind in (CONSOLIDATION, BAND):
    full = random.uniform(0.75 if kind == CONSOLIDATION else 0.4, 0.96)
    return full - 0.1 * np.clip(1 - grain, 0, 1) - 0.25 * np.exp(-inner / 0.06)
  if kind == MIXED:
    patchy = inner + random.uniform(0.1, 0.35) * focus.noise((14.0, 5.0), random)
    core = np.clip((patchy - random.uniform(0.35, 0.6)) / 0.12, 0, 1)
    return water + core * (random.uniform(0.6, 0.95) - water)
  if kind == CRAZY_PAVING:
    return water + random.uniform(0.15, 0.35) * _lines(focus, random)
  if kind == REVERSED_HALO:
    rim = np.clip((random.uniform(0.25, 0.4) - inner) / 0.1, 0, 1)
    return water + rim * (random.uniform(0.5, 0.9) - water)
  return water


def _lines(focus, random) -> np.ndarray:
  """float32 [n]: 1 on thickened septa, planes between scattered points, else 0."""
  middles = _scattered(focus, random.uniform(*_PAVING_MM), random)
  distances, _ = spatial.cKDTree(middles).query(focus.place_mm.T, k=2)
  # Infinite where there is but one: no septum.
  return np.clip(1.3 - (distances[:, 1] - distances[:, 0]) / 1.6, 0, 1)


def _composed(hu, lung_mask, grid, lungs, opacity, texture, random):
  """(hu, lesion_mask): water in place of air, slice by slice."""
  painted = np.array(hu, np.int16)
  lesion_mask = np.zeros(hu.shape, np.uint8)
  held, rows, columns = (grid.matrix(axis) for axis in range(3))
  inside = lungs.inside.astype(np.float32)
  fields = [opacity.water, opacity.transplanted, opacity.member, inside]
  touched = np.flatnonzero(held @ opacity.member.max((1, 2)))
  noise_hu = _noise(hu, lung_mask, grid)
  place = None if texture is None else judge_textures.Place.draw(texture, grid, random)
  for index in touched:
    number = grid.box[0].start + int(index)
    part = (number, *grid.box[1:])
    weights = held[[int(index)]]
    water, real, member, share, aerated = (
      (
        columns @ (rows @ sum(map(np.multiply, weights.data, field[weights.indices]))).T
      ).T
      for field in (*fields, lungs.aerated_hu)
    )
    share = np.maximum(share, 0.02)  # Averages over the lung's part alone.
    if place is not None:
      water = np.maximum(water, real * place.water(int(index)))
    lung = lung_mask[part] != 0
    plane = hu[part].astype(np.float32)
    rise = _rise(plane, water / share, lung, aerated, noise_hu, grid.spacing_mm[1:])
    wide = [_SEEN_OVER_MM / step for step in grid.spacing_mm[1:]]
    seen = ndimage.gaussian_filter(rise, wide) > _SEEN_HU
    lesion_mask[part] = lung & (member / share > 0.5) & seen
    painted[part] = np.clip(np.rint(plane + rise), volume.AIR_HU, 3071)
  return painted, lesion_mask


def _rise(image, water, lung, aerated_hu, noise_hu, pixel_mm) -> np.ndarray:
  """float32 [row, column]: by how many HU water in place of air raises a slice.

  Args:
    image: float32 [row, column], HU.
    water: float32 [row, column], the share.
    lung: bool [row, column].
    aerated_hu: float32 [row, column], of air-filled lung around.
    noise_hu: deviation of the noise.
    pixel_mm: between rows and between columns.
  """
  smooth = ndimage.gaussian_filter(
    image, [judge_textures.STRUCTURE_MM / step for step in pixel_mm]
  )
  detail = image - smooth
  # What sticks out of the noise is a vessel or a wall; the rest is noise, and stays.
  structure = smooth + detail - np.clip(detail, -3 * noise_hu, 3 * noise_hu)
  # Pixels that the pleura shares with the lung belong to it by their share of air.
  rim = ndimage.binary_dilation(lung, iterations=2) & (smooth > -500) & (smooth < 0)
  margin = max(70.0, noise_hu)
  open_ = np.clip((aerated_hu - margin - structure) / 60.0, 0, 1)  # Airways stay open.
  water = np.clip(water, 0, 0.97) * (lung | rim) * (1 - open_)
  return water * np.maximum(judge_textures.WATER_HU - structure, 0)


def _noise(hu, lung_mask, grid) -> float:
  """Deviation of the noise in HU: of what a slight blur takes from aerated lung."""
  middle = (grid.box[0].start + grid.box[0].stop) // 2
  plane = hu[middle].astype(np.float32)
  detail = plane - ndimage.gaussian_filter(
    plane, [judge_textures.STRUCTURE_MM / step for step in grid.spacing_mm[1:]]
  )
  values = detail[(lung_mask[middle] != 0) & (plane < -600)]
  if not values.size:
    return 30.0
  return float(np.clip(1.4826 * np.median(np.abs(values - np.median(values))), 5, 120))
