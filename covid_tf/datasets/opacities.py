"""Opacities of infected lung, painted through the slices of a chest that has none.

An opacity is a body in millimetres, whatever the slices' distance: it is laid through
neighbouring thin slices before these are averaged to slabs. What it changes is how
much of a voxel's air is replaced by fluid and cells, blurred as a scanner would. The
change of HU follows from it: a vessel has no air to lose and shows through ground
glass, consolidation reaches the density of a vessel and hides it, and the chest's own
noise stays, for it is added to, never drawn anew.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np
from scipy import ndimage

from covid_tf import volume
from covid_tf.datasets import random_fields

# Ours, from general radiological knowledge: shares of a voxel's air that are replaced.
# Lung at rest is at -850 HU, so that 0.1 makes -760, 0.2 -670, 0.5 -400 HU.
_AIR_REPLACED = {
  'faint': (0.09, 0.18),
  'ground glass': (0.16, 0.48),
  'mixed': (0.18, 0.42),
  'crazy paving': (0.16, 0.36),
  'reversed halo': (0.3, 0.8),
  'band': (0.35, 0.9),
  'consolidation': (0.75, 1.0),
  'transplanted': (0.7, 1.2),  # Times the share that the real lesion has.
}
_ODDS = {
  'faint': 0.10,
  'ground glass': 0.42,
  'mixed': 0.14,
  'crazy paving': 0.10,
  'reversed halo': 0.03,
  'band': 0.06,
  'consolidation': 0.15,
}
KINDS = tuple(_AIR_REPLACED)
_TRANSPLANTED_ODDS = 0.35  # Of an opacity, where real lesions are given.
_FLUID_HU = 40.0  # What replaces air: fluid and cells, between water and muscle.
_NORMAL_LUNG_HU = (-930.0, -780.0)  # Ours: of a breath in, with and without emphysema.
_VISIBLE_HU = 50.0  # A voxel that rose by this much is drawn as lesion.
# Blur of the scanner in the plane; along the body half of the slices' distance.
_POINT_SPREAD_MM = 0.7
# Ours: what is finer and weaker than this is the chest's noise, and stays.
_NOISE_SIGMA_MM, _NOISE_HU = 1.0, 60.0
_LATTICE_MM = 3.0  # Depths are smooth: measured on a lattice as coarse as this.


@dataclasses.dataclass(frozen=True)
class LesionTexture:
  """A real lesion, as what it did to the air of its slice.

  Attributes:
    air_replaced: float32 [row, column], share of the air of normal lung that the
      lesion replaced, in [0, 1].
    pixel_mm: between its pixels.
  """

  air_replaced: np.ndarray
  pixel_mm: float


def texture_of(hu: np.ndarray, pixel_mm: float) -> LesionTexture:
  """What a lesion did to the air of its slice.

  Args:
    hu: [row, column] in HU, a part of a lung that is mostly lesion.
    pixel_mm: between its pixels.
  """
  smooth = ndimage.gaussian_filter(np.asarray(hu, np.float32), 0.5 / pixel_mm)
  # Its least dense tenth is as near to normal lung as it has.
  normal = np.clip(np.quantile(smooth, 0.1), *_NORMAL_LUNG_HU)
  replaced = np.clip((smooth - normal) / (_FLUID_HU - normal), 0, 1)
  return LesionTexture(replaced.astype(np.float32), pixel_mm)


@dataclasses.dataclass(frozen=True)
class Painted:
  """A chest with opacities.

  Attributes:
    hu: int16 [slice, row, column], HU.
    lesion_mask: uint8 [slice, row, column]; 1 where lung became 50 HU denser or more.
    kinds: of each opacity, of KINDS; 'diffuse' where it covers much of both lungs.
  """

  hu: np.ndarray
  lesion_mask: np.ndarray
  kinds: tuple[str, ...]


def paint(
  hu: np.ndarray,
  lung_mask: np.ndarray,
  spacing_mm: tuple[float, float, float],
  random: np.random.Generator,
  textures: Sequence[LesionTexture] = (),
) -> Painted:
  """Paints one to dozens of opacities, or diffuse disease, into the lungs.

  Args:
    hu: [slice, row, column] in HU, rows from front to back; not changed.
    lung_mask: [slice, row, column], nonzero inside the lungs.
    spacing_mm: between (slices, rows, columns), all above 0. For a single slice the
      first is its thickness.
    random: source of every choice.
    textures: real lesions; where given, a third of the opacities have their density
      and texture.

  Raises:
    ValueError: the mask holds no lung, or a distance is not above 0.
  """
  lung_mask = np.asarray(lung_mask, bool)
  if not lung_mask.any():
    raise ValueError('lung_mask holds no lung to paint an opacity into.')
  if not min(spacing_mm) > 0:
    raise ValueError(f'spacing_mm must be above 0, found {spacing_mm}.')
  place = _around(lung_mask, spacing_mm)
  lungs = _Lungs.measure(lung_mask[place], spacing_mm)
  if random.random() < 0.15:
    replaced, kinds = _diffuse(lungs, random), ('diffuse',)
  else:
    replaced, kinds = _focal(lungs, random, textures)
  rise = air_change(hu[place], replaced * lungs.mask, spacing_mm)
  painted = np.array(hu, np.float32)
  painted[place] += rise
  lesion_mask = np.zeros(hu.shape, np.uint8)
  lesion_mask[place] = (rise >= _VISIBLE_HU) & lungs.mask
  return Painted(to_hu(painted), lesion_mask, kinds)


def air_change(
  hu: np.ndarray, replaced: np.ndarray, spacing_mm: tuple[float, float, float]
) -> np.ndarray:
  """float32: change of HU where a share of the air is replaced by fluid.

  Args:
    hu: [slice, row, column] in HU.
    replaced: float32 of the same shape; below 0, tissue is replaced by air.
    spacing_mm: between (slices, rows, columns).
  """
  through, down, across = spacing_mm
  spread = (
    0.0 if len(hu) < 3 else 0.5,
    _POINT_SPREAD_MM / down,
    _POINT_SPREAD_MM / across,
  )
  fine = (0.0, _NOISE_SIGMA_MM / down, _NOISE_SIGMA_MM / across)
  replaced = ndimage.gaussian_filter(replaced, spread, mode='nearest', truncate=3)
  hu = np.asarray(hu, np.float32)
  smooth = ndimage.gaussian_filter(hu, fine, truncate=3)
  # What stands out of its neighbours by more than noise does is a vessel, or a hole:
  # it has less air to lose, or more.
  detail = hu - smooth
  detail -= np.clip(detail, -_NOISE_HU, _NOISE_HU)
  return replaced * np.clip(_FLUID_HU - smooth - detail, 0, None)


def to_hu(image: np.ndarray) -> np.ndarray:
  """int16 of float HU, in the range of a 12-bit CT."""
  return np.clip(np.rint(image), volume.AIR_HU, 3071).astype(np.int16)


@dataclasses.dataclass(frozen=True)
class _Lungs:
  """The lungs' block of a chest.

  Attributes:
    mask: bool [slice, row, column].
    spacing_mm: of it.
    depth_mm: float32 [slice, row, column], distance to the lungs' surface.
  """

  mask: np.ndarray
  spacing_mm: tuple[float, float, float]
  depth_mm: np.ndarray

  @classmethod
  def measure(cls, mask, spacing_mm):
    steps = tuple(max(1, round(_LATTICE_MM / mm)) for mm in spacing_mm)
    coarse = mask[tuple(slice(None, None, step) for step in steps)]
    sampling = tuple(step * mm for step, mm in zip(steps, spacing_mm))
    # Padded in the plane alone: where the CT ends, the lung goes on.
    padded = np.pad(coarse, ((0, 0), (1, 1), (1, 1)))
    depth = ndimage.distance_transform_edt(padded, sampling)[:, 1:-1, 1:-1]
    return cls(mask, spacing_mm, random_fields.stretched(depth, mask.shape))

  def heights(self):
    """(posterior, basal) in [0, 1], broadcast over [slice, row, column]."""
    slices, rows, _ = self.mask.shape
    posterior = np.linspace(0, 1, rows, dtype=np.float32)[np.newaxis, :, np.newaxis]
    basal = np.linspace(1, 0, slices, dtype=np.float32)[:, np.newaxis, np.newaxis]
    return posterior, basal if slices > 1 else basal * 0 + 0.5


def _around(mask, spacing_mm):
  """Slices that hold the mask and 4 mm beside it: blurs must not end at its edge."""
  found = []
  for axis, mm in enumerate(spacing_mm):
    other = tuple(a for a in range(3) if a != axis)
    inside = np.flatnonzero(mask.any(axis=other))
    margin = int(np.ceil(4.0 / mm))
    found.append(slice(max(0, inside[0] - margin), inside[-1] + 1 + margin))
  return tuple(found)


def _focal(lungs, random, textures):
  """Share of air replaced by one to dozens of opacities, and their kinds."""
  replaced = np.zeros(lungs.mask.shape, np.float32)
  most = random.choice([1, 3, 10, 30], p=[0.25, 0.35, 0.28, 0.12])
  count = int(random.integers(max(1, most // 3), most + 1))
  # Of dozens none is large; the slices of a patient resemble one another.
  largest_mm = {1: 42.0, 3: 38.0, 10: 28.0, 30: 18.0}[int(most)]
  names, odds = list(_ODDS), np.array(list(_ODDS.values()))
  own = odds * random.gamma(0.7, size=odds.size)
  own /= own.sum()
  kinds = []
  for site in _sites(lungs, count, random):
    if textures and random.random() < _TRANSPLANTED_ODDS:
      kind = 'transplanted'
    else:
      kind = names[random.choice(len(names), p=own)]
    radius_mm = float(np.exp(random.uniform(np.log(6.0), np.log(largest_mm))))
    _add_opacity(replaced, lungs, site, radius_mm, kind, random, textures)
    kinds.append(kind)
  return replaced, tuple(kinds)


def _sites(lungs, count, random):
  """int [count, 3]: subpleural, posterior and basal lung voxels by preference."""
  voxels = np.argwhere(lungs.mask)
  voxels = voxels[random.integers(0, len(voxels), 4000)]
  depth = lungs.depth_mm[tuple(voxels.T)]
  posterior, basal = lungs.heights()
  odds = np.exp(-depth / random.choice([4.0, 10.0, 40.0], p=[0.5, 0.3, 0.2]))
  odds *= np.exp(
    random.uniform(0, 2.5) * posterior[0, voxels[:, 1], 0]
    + random.uniform(0, 1.5) * basal[voxels[:, 0], 0, 0]
  )
  return voxels[random.choice(len(voxels), count, p=odds / odds.sum())]


def _add_opacity(replaced, lungs, site, radius_mm, kind, random, textures):
  """Lays one opacity into `replaced`."""
  reach = 1.6 * radius_mm * (1.6 if kind == 'band' else 1.0)
  block = tuple(
    slice(max(0, int(at - reach / mm)), int(at + reach / mm) + 1)
    for at, mm in zip(site, lungs.spacing_mm)
  )
  offsets = [
    mm * (np.arange(part.start, min(part.stop, side), dtype=np.float32) - at)
    for part, side, mm, at in zip(block, lungs.mask.shape, lungs.spacing_mm, site)
  ]
  here = _Here(
    np.meshgrid(*offsets, indexing='ij', sparse=True),
    lungs.depth_mm[block],
    lungs.spacing_mm,
    random,
  )
  weight = here.band(radius_mm) if kind == 'band' else here.body(radius_mm)
  low, high = _AIR_REPLACED[kind]
  amount = random.uniform(low, high)
  if kind == 'transplanted':
    share = amount * here.real(textures[random.integers(len(textures))])
  else:
    share = _SHARES.get(kind, _plain)(here, weight, amount)
  np.maximum(replaced[block], np.clip(weight * share, 0, 1), out=replaced[block])


@dataclasses.dataclass(frozen=True)
class _Here:
  """The block of one opacity: millimetres from its middle, depth, and chance."""

  offsets_mm: Sequence[np.ndarray]
  depth_mm: np.ndarray
  spacing_mm: tuple[float, float, float]
  random: np.random.Generator

  def noise(self, scale_mm):
    return random_fields.smooth(
      self.depth_mm.shape, self.spacing_mm, scale_mm, self.random
    )

  def body(self, radius_mm):
    """float32 in [0, 1]: an irregular body that follows the pleura."""
    random = self.random
    turned = _turned(self.offsets_mm, random)
    stretch = np.exp(random.normal(0, 0.3, 3))
    stretch /= stretch.prod() ** (1 / 3)
    distance = np.sqrt(sum((part * s) ** 2 for part, s in zip(turned, stretch)))
    inside = 1.0 - distance / radius_mm
    inside += random.uniform(0.0, 0.5) * (np.exp(-self.depth_mm / 8.0) - 0.4)
    inside += random.uniform(0.15, 0.4) * self.noise(0.6 * radius_mm)
    inside += random.uniform(0.05, 0.25) * self.noise(max(2.5, 0.2 * radius_mm))
    return np.clip(inside / random.uniform(0.12, 0.8), 0, 1)

  def band(self, radius_mm):
    """float32 in [0, 1]: a bent plate, a few millimetres thick."""
    along, across, over = _turned(self.offsets_mm, self.random)
    half_mm = self.random.uniform(1.5, 4.5)
    bent = across + 0.15 * radius_mm * self.noise(radius_mm)
    thin = np.clip(half_mm + 1.0 - np.abs(bent), 0, 1)
    length = 1.0 - np.hypot(along, over) / (1.5 * radius_mm)
    return thin * np.clip(3 * length, 0, 1)

  def real(self, texture):
    """float32: a real lesion's share of air, turned, and drifting along the body."""
    z, y, x = self.offsets_mm
    angle = self.random.uniform(0, 2 * np.pi)
    drift = self.random.normal(0, 0.6, 2)
    down = np.cos(angle) * y - np.sin(angle) * x + drift[0] * z
    right = np.sin(angle) * y + np.cos(angle) * x + drift[1] * z
    middle = [
      self.random.uniform(0.3, 0.7) * side for side in texture.air_replaced.shape
    ]
    places = [
      np.broadcast_to(part / texture.pixel_mm + at, self.depth_mm.shape)
      for part, at in zip((down, right), middle)
    ]
    return ndimage.map_coordinates(
      texture.air_replaced, places, order=1, mode='mirror', prefilter=False
    )


def _plain(here, weight, amount):
  del weight
  grain = here.random.uniform(0.08, 0.35) * here.noise(here.random.uniform(1.5, 7.0))
  return amount * np.clip(1 + grain, 0.3, 1.7)


def _mixed(here, weight, amount):
  """Ground glass with a denser core."""
  core = np.clip((weight - here.random.uniform(0.4, 0.8)) / 0.2, 0, 1)
  core *= np.clip(0.8 + 0.6 * here.noise(6.0), 0, 1)
  return _plain(here, weight, amount) * (1 - core) + 0.9 * core


def _crazy(here, weight, amount):
  """Ground glass with thickened septa."""
  septa = np.clip(1 - np.abs(here.noise(here.random.uniform(3.5, 6.0))) / 0.3, 0, 1)
  return _plain(here, weight, amount) + here.random.uniform(0.15, 0.4) * septa


def _halo(here, weight, amount):
  """A dense ring around ground glass."""
  ring = np.clip(1 - np.abs(weight - 0.45) / 0.35, 0, 1)
  return _plain(here, weight, amount) * (0.3 + 0.7 * ring)


def _solid(here, weight, amount):
  """Consolidation; airways keep their air deeper than 5 mm."""
  tubes = np.hypot(here.noise(9.0), here.noise(9.0)) < here.random.uniform(0.0, 0.3)
  solid = np.clip(amount * (1 + 0.06 * here.noise(4.0)), 0, 1)
  return np.where(tubes & (here.depth_mm > 5.0), 0.1, solid)


_SHARES = {
  'mixed': _mixed,
  'crazy paving': _crazy,
  'reversed halo': _halo,
  'consolidation': _solid,
}


def _diffuse(lungs, random):
  """Share of air replaced by patches over much of both lungs."""

  def noise(scale_mm):
    return random_fields.smooth(lungs.mask.shape, lungs.spacing_mm, scale_mm, random)

  posterior, basal = lungs.heights()
  field = noise(random.uniform(12, 30)) + random.uniform(0.2, 0.6) * noise(6.0)
  field += random.uniform(0, 1.5) * np.exp(-lungs.depth_mm / 15.0)
  field += random.uniform(0, 1.2) * posterior + random.uniform(0, 1.2) * basal
  cut = np.quantile(field[lungs.mask][::7], 1 - random.uniform(0.08, 0.6))
  weight = np.clip((field - cut) / random.uniform(0.2, 1.2), 0, 1)
  low, high = _AIR_REPLACED['ground glass']
  share = random.uniform(low, high) * np.clip(
    1 + random.uniform(0.1, 0.3) * noise(random.uniform(2.0, 6.0)), 0.3, 1.7
  )
  if random.random() < 0.4:
    septa = np.clip(1 - np.abs(noise(random.uniform(3.5, 6.0))) / 0.3, 0, 1)
    share += random.uniform(0.1, 0.35) * septa
  if random.random() < 0.4:
    core = np.clip(field - cut - random.uniform(0.5, 1.5), 0, 1)
    share = share * (1 - core) + 0.9 * core
  return np.clip(weight * share, 0, 1)


def _turned(offsets, random):
  """Three axes in a random direction."""
  axes, _ = np.linalg.qr(random.normal(size=(3, 3)))
  return [sum(float(c) * part for c, part in zip(axis, offsets)) for axis in axes]
