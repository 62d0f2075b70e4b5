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
stays open. Densities may also be those of real lesions (`texture_of`).
"""

from collections.abc import Sequence
import dataclasses

import numpy as np
from scipy import ndimage
from scipy import sparse
from scipy import spatial

from covid_tf import errors
from covid_tf import volume

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
_WATER_HU = 30.0  # Inflamed tissue without contrast medium.
AMOUNT_CM3 = (1.5, 500.0)
_LARGEST_SHARE = 0.45  # Of the lungs that all opacities may take.
_SMALLEST_FOCUS_CM3 = 0.25
_SMALLEST_LUNGS_CM3 = 100.0

_STEP_MM = 1.5  # Of the grid that opacities are made on.
_LOBULE_MM = (10.0, 20.0)
_PAVING_MM = (5.0, 9.0)  # Lines within lobules.
_STRUCTURE_MM = 0.8  # Vessels are wider, noise is not.
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


@dataclasses.dataclass(frozen=True)
class Texture:
  """Density of a real lesion.

  Attributes:
    water: float32 [row, column], share of the air that is replaced, in [0, 1].
    pixel_mm: between its pixels.
  """

  water: np.ndarray
  pixel_mm: float


def implant(
  hu: np.ndarray,
  lung_mask: np.ndarray,
  spacing_mm: tuple[float, float, float],
  random: np.random.Generator,
  amount_cm3: tuple[float, float] = AMOUNT_CM3,
  textures: Sequence[Texture] = (),
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
  grid = _Grid.around(lung_mask, spacing_mm)
  lungs = _Lungs.on(grid, hu, lung_mask)
  foci = _draw_foci(lungs, amount_cm3, bool(textures), random)
  opacity = _Opacity.none(grid.shape)
  kinds, skipped = [], 0
  for kind, focus_cm3 in foci:
    if _add_focus(opacity, lungs, kind, focus_cm3, random):
      kinds.append(kind)
    else:
      skipped += 1
  texture = textures[int(random.integers(len(textures)))] if textures else None
  blur = random.uniform(0.4, 1.0) / _STEP_MM
  for field in (opacity.water, opacity.transplanted):
    if field.any():
      ndimage.gaussian_filter(field, blur, output=field)
  painted, lesion_mask = _composed(hu, lung_mask, grid, lungs, opacity, texture, random)
  return Implanted(painted, lesion_mask, tuple(kinds), skipped)


@dataclasses.dataclass(frozen=True)
class _Grid:
  """A grid of one step around the lungs.

  Attributes:
    box: of the chest's voxels that the grid covers.
    spacing_mm: of the chest.
    shape: points along (slice, row, column).
  """

  box: tuple[slice, slice, slice]
  spacing_mm: tuple[float, float, float]
  shape: tuple[int, int, int]

  @classmethod
  def around(cls, lung_mask, spacing_mm) -> '_Grid':
    held = []
    for axis in range(3):
      others = tuple(other for other in range(3) if other != axis)
      places = np.flatnonzero(np.any(lung_mask, axis=others))
      if not len(places):
        raise errors.NoLungsError(
          'lung_mask: lungs to implant opacities into are required, found none.'
        )
      held.append(slice(int(places[0]), int(places[-1]) + 1))
    slices, rows, columns = (
      max(2, int(np.ceil((part.stop - part.start) * step / _STEP_MM)))
      for part, step in zip(held, spacing_mm)
    )
    return cls((held[0], held[1], held[2]), spacing_mm, (slices, rows, columns))

  def sampled(self, planes: np.ndarray) -> np.ndarray:
    """The chest's voxel nearest to each point."""
    places = []
    for part, step, count in zip(self.box, self.spacing_mm, self.shape):
      index = ((np.arange(count) + 0.5) * _STEP_MM / step).astype(int)
      places.append(part.start + np.minimum(index, part.stop - part.start - 1))
    return planes[np.ix_(*places)]

  def matrix(self, axis: int) -> sparse.csr_array:
    """float32 [voxel, point]: a voxel's average over its own length, rows sum to 1.

    Sparse, since a product of full matrices waits for its threads where other programs
    hold the cores.
    """
    part, step, count = self.box[axis], self.spacing_mm[axis], self.shape[axis]
    # So many samples a voxel, each linear between points: the thickness of a slice.
    samples = max(1, round(2 * step / _STEP_MM))
    voxels = part.stop - part.start
    place_mm = (np.arange(voxels * samples) + 0.5) * step / samples
    place = np.clip(place_mm / _STEP_MM - 0.5, 0, count - 1)
    below = np.minimum(place.astype(int), count - 2)
    share = (place - below) / samples
    rows = np.arange(voxels * samples) // samples
    return sparse.csr_array(
      (
        np.concatenate([1 / samples - share, share]).astype(np.float32),
        (np.tile(rows, 2), np.concatenate([below, below + 1])),
      ),
      shape=(voxels, count),
    )


@dataclasses.dataclass(frozen=True)
class _Lungs:
  """The lungs on the grid.

  Attributes:
    inside: bool [slice, row, column].
    piece: int32, which connected piece a point belongs to; 0 outside.
    depth_mm: float32, to the lungs' surface.
    aerated_hu: float32, HU of the air-filled lung around; meaningless far outside.
    odds: float64 [n], summed, that an opacity begins at each of `points`.
    points: int64 [n], aerated ones inside, by their places in the flat grid.
  """

  inside: np.ndarray
  piece: np.ndarray
  depth_mm: np.ndarray
  aerated_hu: np.ndarray
  odds: np.ndarray
  points: np.ndarray

  @classmethod
  def on(cls, grid: _Grid, hu, lung_mask) -> '_Lungs':
    inside = grid.sampled(lung_mask) != 0
    if (found := inside.sum() * _STEP_MM**3 / 1000) < _SMALLEST_LUNGS_CM3:
      raise errors.NoLungsError(
        f'lung_mask: lungs of {_SMALLEST_LUNGS_CM3:g} cm³ or more are required to '
        f'implant opacities into, found {found:.0f} cm³.'
      )
    piece, _ = ndimage.label(inside)
    depth_mm = ndimage.distance_transform_edt(inside).astype(np.float32) * _STEP_MM
    coarse = grid.sampled(hu).astype(np.float32)
    aerated = (inside & (coarse < -650)).astype(np.float32)
    width = 6.0 / _STEP_MM
    mean = ndimage.gaussian_filter(coarse * aerated, width)
    mean /= np.maximum(ndimage.gaussian_filter(aerated, width), 1e-3)
    # Not in airways, vessels or the hilum, where nothing would be seen.
    points = np.flatnonzero(inside & (ndimage.uniform_filter(aerated, 5) > 0.6))
    if not len(points):
      points = np.flatnonzero(inside)
    height, back, _ = np.unravel_index(points, inside.shape)
    # Odds fall to the front, to the apex and from the pleura; ours.
    odds = (
      (0.12 + np.exp(-depth_mm.ravel()[points] / 7.0))
      * (0.15 + back / inside.shape[1])
      * (1.25 - height / inside.shape[0])
    )
    return cls(inside, piece, depth_mm, mean, np.cumsum(odds, dtype=float), points)

  @property
  def volume_cm3(self) -> float:
    """Of the lungs."""
    return np.count_nonzero(self.inside) * _STEP_MM**3 / 1000

  def draw_point(self, random: np.random.Generator) -> tuple[int, int, int]:
    """A point where an opacity begins."""
    place = np.searchsorted(self.odds, random.random() * self.odds[-1])
    point = self.points[min(int(place), len(self.points) - 1)]
    height, row, column = np.unravel_index(point, self.inside.shape)
    return int(height), int(row), int(column)


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
  reach = int(np.ceil((1.9 * radius_mm + 12.0) / _STEP_MM))
  count = max(1, round(focus_cm3 * 1000 / _STEP_MM**3))
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
    place_mm = (np.array(np.nonzero(own)) - corner[:, np.newaxis]) * _STEP_MM
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
  step = max(1.0, wide_mm / _STEP_MM)
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
  place = None if texture is None else _Place.draw(texture, grid, random)
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
  smooth = ndimage.gaussian_filter(image, [_STRUCTURE_MM / step for step in pixel_mm])
  detail = image - smooth
  # What sticks out of the noise is a vessel or a wall; the rest is noise, and stays.
  structure = smooth + detail - np.clip(detail, -3 * noise_hu, 3 * noise_hu)
  # Pixels that the pleura shares with the lung belong to it by their share of air.
  rim = ndimage.binary_dilation(lung, iterations=2) & (smooth > -500) & (smooth < 0)
  margin = max(70.0, noise_hu)
  open_ = np.clip((aerated_hu - margin - structure) / 60.0, 0, 1)  # Airways stay open.
  water = np.clip(water, 0, 0.97) * (lung | rim) * (1 - open_)
  return water * np.maximum(_WATER_HU - structure, 0)


def _noise(hu, lung_mask, grid) -> float:
  """Deviation of the noise in HU: of what a slight blur takes from aerated lung."""
  middle = (grid.box[0].start + grid.box[0].stop) // 2
  plane = hu[middle].astype(np.float32)
  detail = plane - ndimage.gaussian_filter(
    plane, [_STRUCTURE_MM / step for step in grid.spacing_mm[1:]]
  )
  values = detail[(lung_mask[middle] != 0) & (plane < -600)]
  if not values.size:
    return 30.0
  return float(np.clip(1.4826 * np.median(np.abs(values - np.median(values))), 5, 120))


# Density of real lesions, of slices of COVID patients that training did not cut from.

_WINDOWS_MM = (60.0, 45.0, 32.0, 22.0)
_OPAQUE_HU = (-720.0, -50.0)
_OPAQUE_SHARE = 0.6  # Of a window that is taken.
_WIDER_THAN_VESSELS_MM = 4.5
_MOST_OVER_GROUND_HU = 150.0


def texture_of(hu: np.ndarray, lung_mask: np.ndarray, pixel_mm: float) -> Texture:
  """Takes the density of the largest opacity of a slice.

  Args:
    hu: int16 [row, column], HU, of a slice with an opacity.
    lung_mask: [row, column], nonzero inside the lungs, opacities included.
    pixel_mm: between pixels.

  Returns:
    The density in the largest square window, 22 to 60 mm wide, of which 0.6 or more is
    opaque lung.

  Raises:
    errors.NoLungsError: the slice shows no such window.
  """
  lung = np.asarray(lung_mask) != 0
  smooth = ndimage.gaussian_filter(hu.astype(np.float32), _STRUCTURE_MM / pixel_mm)
  # What a square of 4.5 mm fits into is no vessel of a lung's outer parts.
  wide = ndimage.grey_opening(smooth, max(2, round(_WIDER_THAN_VESSELS_MM / pixel_mm)))
  opaque = lung & (wide > _OPAQUE_HU[0]) & (wide < _OPAQUE_HU[1])
  for window_mm in _WINDOWS_MM:
    side = max(3, round(window_mm / pixel_mm))
    if side >= min(hu.shape):
      continue
    share = ndimage.uniform_filter(opaque.astype(np.float32), side)
    row, column = np.unravel_index(int(np.argmax(share)), share.shape)
    if share[row, column] >= _OPAQUE_SHARE:
      part = tuple(
        slice(max(0, place - side // 2), place + side // 2 + 1)
        for place in (int(row), int(column))
      )
      return _texture(smooth, wide, lung, part, pixel_mm)
  raise errors.NoLungsError(
    f'a slice with an opacity is required, found no window of {_WINDOWS_MM[-1]:g} mm '
    f'of which {_OPAQUE_SHARE:g} is lung of {_OPAQUE_HU[0]:g} to {_OPAQUE_HU[1]:g} HU.'
  )


def _texture(smooth, wide, lung, part, pixel_mm) -> Texture:
  aerated = float(np.clip(np.percentile(smooth[lung], 20), -900, -780))
  # Vessels of the source, which the chest has itself, are cut down to their ground.
  limited = np.minimum(smooth, wide + _MOST_OVER_GROUND_HU)
  water = np.clip((limited - aerated) / (_WATER_HU - aerated), 0, 1)[part]
  inside = lung[part]
  water = np.where(inside, water, np.median(water[inside]))  # Chest wall, not lung.
  return Texture(water.astype(np.float32), float(pixel_mm))


@dataclasses.dataclass(frozen=True)
class _Place:
  """Where a texture lies in a chest: mirrored at its edges, shifted along z.

  Attributes:
    texture: of a real lesion.
    places: for rows and columns, float64 [row or column], in pixels of the texture.
    shifts: float64 [slice, 2], of both in each slice.
  """

  texture: Texture
  places: tuple[np.ndarray, np.ndarray]
  shifts: np.ndarray

  @classmethod
  def draw(cls, texture: Texture, grid: _Grid, random) -> '_Place':
    places = tuple(
      random.uniform(0, 200)
      + np.arange(part.stop - part.start) * step / texture.pixel_mm
      for part, step in zip(grid.box[1:], grid.spacing_mm[1:])
    )
    slices = grid.box[0].stop - grid.box[0].start
    # A pattern seen in one plane is continued in a slanting direction that changes.
    steps = random.normal(0, 1, (slices, 2))
    steps = ndimage.gaussian_filter1d(steps, 10.0 / grid.spacing_mm[0], axis=0)
    steps *= 0.6 / max(float(np.abs(steps).mean()), 1e-6)
    shifts = np.cumsum(steps * grid.spacing_mm[0] / texture.pixel_mm, axis=0)
    return cls(texture, (places[0], places[1]), shifts)

  def water(self, index: int) -> np.ndarray:
    """float32 [row, column] of one slice of the grid's box."""
    rows, columns = (
      self._matrix(place + shift, side)
      for place, shift, side in zip(
        self.places, self.shifts[index], self.texture.water.shape
      )
    )
    return (columns @ (rows @ self.texture.water).T).T

  @staticmethod
  def _matrix(place, side) -> sparse.csr_array:
    """float32 [pixel, side]: linear interpolation at mirrored places."""
    place = np.abs((place + side - 1) % (2 * (side - 1)) - (side - 1))
    below = np.minimum(place.astype(int), side - 2)
    share = (place - below).astype(np.float32)
    pixels = np.tile(np.arange(len(place)), 2)
    return sparse.csr_array(
      (
        np.concatenate([1 - share, share]),
        (pixels, np.concatenate([below, below + 1])),
      ),
      shape=(len(place), side),
    )
