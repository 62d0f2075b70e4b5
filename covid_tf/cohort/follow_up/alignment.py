"""Where a place in the lungs of one study lies in another: an affine of two lung masks.

Two scans of one patient differ by how the patient lay and by the depth of breath. One
affine (shift, turn, stretch, shear) is fitted to the surfaces of the lungs, by iterated
closest points; what it leaves between the surfaces is stated as its error. It moves no
vessel and no lobe inside the lungs to its counterpart (docs/adr/0171).
"""

import dataclasses

import numpy as np
from scipy import spatial

from covid_tf.cohort.follow_up import lung_surface


@dataclasses.dataclass(frozen=True)
class _Detail:
  """How finely two surfaces are fitted.

  Attributes:
    points: kept of each surface.
    fitted: of them those that look for a counterpart in a step.
    steps: of the fit.
    tolerances_mm: a pair further apart counts less; in the first and the last step.
    stiffness: what shear costs.
  """

  points: int
  fitted: int
  steps: int
  tolerances_mm: tuple[float, float]
  stiffness: float


# All ours, by measurement (docs/adr/0171).
_COARSE = _Detail(4_800, 1_200, 14, (25.0, 8.0), 0.1)
_FINE = _Detail(16_000, 4_000, 20, (8.0, 4.0), 0.005)
_LEAST_PAIRS = 50
_NORMAL_MM = 12.0  # Surfaces that face other ways are up to twice as much further.
_ARM_MM = 100.0  # Of a linear part's unit: what a change of it moves at the ends.

# What an affine of one patient's lungs may be. From a full breath to its end lungs lose
# about half of their volume; width and depth change less than height.
_VOLUME_RATIO = 3.0
_SCALES = (0.6, 1 / 0.6)
_MOST_DEGREES = 30.0
_LEAST_COMMON = 0.6  # Share of the lungs of one study that the other one imaged.
MOST_MEAN_MM = 4.0
# Lungs are nearly symmetric: directions count as exchanged where that fits better by so
# much, and the lungs as they lie do not fit well.
_BETTER = 0.7
_GOOD_MM = 2.0
EXCHANGED = {
  (-1, 1, 1): 'right and left are exchanged',
  (1, -1, 1): 'front and back are exchanged',
  (1, 1, -1): 'head and feet are exchanged',
  (-1, -1, 1): 'right and left and front and back are exchanged (prone for supine)',
  (-1, 1, -1): 'right and left and head and feet are exchanged (feet first for head)',
  (1, -1, -1): 'front and back and head and feet are exchanged',
  (-1, -1, -1): 'all three directions are exchanged',
}


@dataclasses.dataclass(frozen=True)
class Alignment:
  """How the lungs of a reference study lie in another one.

  Attributes:
    matrix: float64 [4, 4], LPS millimetres of the reference, with a 1, to those of the
      other study.
    mean_mm: mean distance between the two surfaces, from both sides, in millimetres of
      the other study.
    p95_mm: 95th percentile of these distances.
    common_fraction: share of the reference's lungs that the other study imaged, or of
      the other's that the reference did: the smaller one.
  """

  matrix: np.ndarray
  mean_mm: float
  p95_mm: float
  common_fraction: float = 1.0

  def to_other(self, points_mm: np.ndarray) -> np.ndarray:
    """LPS millimetres [..., 3] of the reference to those of the other study."""
    return points_mm @ self.matrix[:3, :3].T + self.matrix[:3, 3]

  def to_first(self, points_mm: np.ndarray) -> np.ndarray:
    """LPS millimetres [..., 3] of the other study to those of the reference."""
    back = np.linalg.inv(self.matrix)
    return points_mm @ back[:3, :3].T + back[:3, 3]

  @property
  def scales(self) -> tuple[float, float, float]:
    """How much longer right-left, front-back and foot-head are in the other study."""
    x, y, z = np.diag(_polar(self.matrix[:3, :3])[1]).tolist()
    return x, y, z

  @property
  def turn_degrees(self) -> float:
    """The angle by which the other study's lungs are turned."""
    turn, _ = _polar(self.matrix[:3, :3])
    return float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))))


IDENTITY = Alignment(np.eye(4), 0.0, 0.0)


def _polar(linear: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The rotation and the symmetric stretch whose product is `linear`."""
  left, scales, right = np.linalg.svd(linear)
  sign = np.ones(3)
  sign[2] = np.sign(np.linalg.det(left @ right))  # A rotation mirrors nothing.
  return left * sign @ right, (right.T * (scales * sign)) @ right


def align(
  reference: lung_surface.LungSurface, other: lung_surface.LungSurface
) -> Alignment:
  """Fits the affine between two pairs of lungs.

  Args:
    reference: lungs of the first study.
    other: lungs of another study of the patient.

  Returns:
    The affine, with the distance of the surfaces that it leaves.

  Raises:
    NotAlignedError: it would be no affine of one patient's lungs; the text says what
      was found.
  """
  ratio = other.volume_cm3 / reference.volume_cm3
  if not 1 / _VOLUME_RATIO <= ratio <= _VOLUME_RATIO:
    raise lung_surface.NotAlignedError(
      f'lung volumes within a factor of {_VOLUME_RATIO:g} are required, found '
      f'{reference.volume_cm3:.0f} and {other.volume_cm3:.0f} cm³ (perhaps a lung is '
      'missing or cut off in one of them)'
    )
  coarse = _Pair(reference, other, _COARSE)
  start = coarse.best()
  own_mm = coarse.mean_mm(start)
  if own_mm > _GOOD_MM:
    _require_way(reference, other, own_mm)
  fine = _Pair(reference, other, _FINE)
  found = fine.measured(fine.fitted(start))
  _require_plausible(found)
  return found


def _require_way(
  reference: lung_surface.LungSurface, other: lung_surface.LungSurface, own_mm: float
) -> None:
  """Refuses lungs that fit better when directions are exchanged."""
  fits = {}
  for signs, words in EXCHANGED.items():
    pair = _Pair(_exchanged(reference, signs), other, _COARSE)
    fits[words] = pair.mean_mm(pair.best())
  words, best_mm = min(fits.items(), key=lambda fit: fit[1])
  if best_mm < _BETTER * own_mm:
    raise lung_surface.NotAlignedError(
      f'lungs that lie the same way are required, found that they fit better where '
      f'{words} ({best_mm:.1f} in place of {own_mm:.1f} mm apart): one of the studies '
      'states its directions wrongly, or they are of two patients'
    )


def _exchanged(
  surface: lung_surface.LungSurface, signs: tuple[int, int, int]
) -> lung_surface.LungSurface:
  return dataclasses.replace(
    surface,
    points_mm=surface.points_mm * signs,
    normals=surface.normals * signs,
    inner_mm=surface.inner_mm * signs,
    cuts=tuple((place * signs, normal * signs) for place, normal in surface.cuts),
  )


def _require_plausible(found: Alignment) -> None:
  scales, degrees = found.scales, found.turn_degrees
  if not all(_SCALES[0] <= scale <= _SCALES[1] for scale in scales):
    raise lung_surface.NotAlignedError(
      f'lungs that are {_SCALES[0]:.2f} to {_SCALES[1]:.2f} times as wide, deep and '
      f'high are required, found {", ".join(f"{scale:.2f}" for scale in scales)} times '
      '(perhaps a lung is missing or cut off in one of them)'
    )
  if degrees > _MOST_DEGREES:
    raise lung_surface.NotAlignedError(
      f'lungs turned by at most {_MOST_DEGREES:.0f} degrees are required, found '
      f'{degrees:.0f}'
    )
  if found.common_fraction < _LEAST_COMMON:
    raise lung_surface.NotAlignedError(
      f'at least {_LEAST_COMMON:.0%} of the lungs in both studies is required, found '
      f'{found.common_fraction:.0%}: the lungs of one are cut off'
    )
  if found.mean_mm > MOST_MEAN_MM:
    raise lung_surface.NotAlignedError(
      f'surfaces of the lungs at most {MOST_MEAN_MM:g} mm apart on average are '
      f'required, found {found.mean_mm:.1f} mm (95 % within {found.p95_mm:.1f} mm): '
      'one of the masks is wrong, a lung is missing, or they are of two patients'
    )


class _Pair:
  """Two surfaces, and the affines between them; an affine is float64 [3, 4]."""

  def __init__(
    self,
    reference: lung_surface.LungSurface,
    other: lung_surface.LungSurface,
    detail: _Detail,
  ) -> None:
    self._detail = detail
    self._reference = reference.thinned(detail.points)
    self._other = other.thinned(detail.points)
    self._centre = reference.inner_mm.mean(axis=0)
    self._tree = _tree(self._other.points_mm, self._other.normals)

  def starts(self) -> list[np.ndarray]:
    """Centre on centre and size on size; where lungs are cut off, end on end too."""
    ends, others = self._reference.ends_mm, self._other.ends_mm
    scales = np.clip((others[1] - others[0]) / (ends[1] - ends[0]), *_SCALES)
    levels = [(ends.mean(axis=0)[2], others.mean(axis=0)[2])]
    if self._reference.cuts or self._other.cuts:
      scales[2] = 1.0
      levels += zip(ends[:, 2], others[:, 2])
    starts = []
    for own_z, other_z in levels:
      shift = others.mean(axis=0) - scales * ends.mean(axis=0)
      shift[2] = other_z - scales[2] * own_z
      starts.append(np.column_stack((np.diag(scales), shift)))
    return starts

  def best(self) -> np.ndarray:
    """The best of what the starts lead to."""
    return min(map(self.fitted, self.starts()), key=self.mean_mm)

  def fitted(self, affine: np.ndarray) -> np.ndarray:
    """Moves an affine to where the surfaces lie on each other."""
    first, last = self._detail.tolerances_mm
    for tolerance_mm in np.geomspace(first, last, self._detail.steps):
      affine = self._step(affine, tolerance_mm)
    return affine

  def mean_mm(self, affine: np.ndarray) -> float:
    """Mean distance of the surfaces."""
    return float(self._distances(affine, self._detail.fitted).mean())

  def measured(self, affine: np.ndarray) -> Alignment:
    """The affine with its error, by all points."""
    distances = self._distances(affine, None)
    there = self._other.imaged(_moved(affine, self._reference.inner_mm))
    here = self._reference.imaged(_moved(_inverse(affine), self._other.inner_mm))
    return Alignment(
      np.vstack((affine, (0, 0, 0, 1))),
      float(distances.mean()),
      float(np.percentile(distances, 95)),
      float(min(there.mean(), here.mean())),
    )

  def _pairs(
    self, affine: np.ndarray, count: int | None
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nearest points, for `count` of each surface: (own, other's, own ones moved).

    Where a surface lies beyond what the other study imaged, it has no counterpart.
    """
    moved = _moved(affine, self._reference.points_mm)
    normals = self._reference.normals @ np.linalg.inv(affine[:, :3])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    points = self._other.points_mm[:count]
    _, there = self._tree.query(_with_normals(moved[:count], normals[:count]))
    _, here = _tree(moved, normals).query(
      _with_normals(points, self._other.normals[:count])
    )
    forward = self._other.imaged(moved[:count])
    backward = self._reference.imaged(_moved(_inverse(affine), points))
    own = np.concatenate((np.flatnonzero(forward), here[backward]))
    others = np.concatenate((there[forward], np.flatnonzero(backward)))
    return own, others, moved

  def _distances(self, affine: np.ndarray, count: int | None) -> np.ndarray:
    """Of points of each surface to the other one, which is flat around its points."""
    own, others, moved = self._pairs(affine, count)
    if not len(own):
      return np.full(1, np.inf)
    apart = moved[own] - self._other.points_mm[others]
    across = np.einsum('ij,ij->i', apart, self._other.normals[others])
    along = np.sqrt(np.maximum(np.einsum('ij,ij->i', apart, apart) - across**2, 0))
    reach_mm = max(self._other.spacing_mm, self._reference.spacing_mm)
    return np.hypot(across, np.maximum(along - reach_mm, 0))

  def _step(self, affine: np.ndarray, tolerance_mm: float) -> np.ndarray:
    """One step: nearest points, then the affine that brings planes together best."""
    own, others, moved = self._pairs(affine, self._detail.fitted)
    if len(own) < _LEAST_PAIRS:
      return affine
    place = (self._reference.points_mm[own] - self._centre) / _ARM_MM
    normals = self._other.normals[others]
    target = np.einsum('ij,ij->i', normals, self._other.points_mm[others])
    apart = np.einsum('ij,ij->i', normals, moved[own]) - target
    weight = 1 / (1 + (apart / tolerance_mm) ** 2)
    weight /= weight.sum()
    rows = np.concatenate(
      ((normals[:, :, np.newaxis] * place[:, np.newaxis]).reshape(-1, 9), normals), 1
    )
    # Towards the nearest turn with scales along the axes: shear has to be worth it.
    turn, stretch = _polar(affine[:, :3])
    rest = turn @ np.diag(np.diag(stretch)) * _ARM_MM
    held = np.repeat((self._detail.stiffness, 0.0), (9, 3))
    weighted = (rows * weight[:, np.newaxis]).T
    solved = np.linalg.solve(
      weighted @ rows + np.diag(held),
      weighted @ target + held * np.append(rest, (0,) * 3),
    )
    linear = solved[:9].reshape(3, 3) / _ARM_MM
    return np.column_stack((linear, solved[9:] - linear @ self._centre))


def _moved(affine: np.ndarray, points_mm: np.ndarray) -> np.ndarray:
  return points_mm @ affine[:, :3].T + affine[:, 3]


def _inverse(affine: np.ndarray) -> np.ndarray:
  linear = np.linalg.inv(affine[:, :3])
  return np.column_stack((linear, -linear @ affine[:, 3]))


def _with_normals(points_mm: np.ndarray, normals: np.ndarray) -> np.ndarray:
  return np.concatenate((points_mm, _NORMAL_MM * normals), axis=1)


def _tree(points_mm: np.ndarray, normals: np.ndarray) -> spatial.cKDTree:
  return spatial.cKDTree(_with_normals(points_mm, normals))
