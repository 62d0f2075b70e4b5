"""What one phantom is: a few numbers from which everything else follows."""

import dataclasses

import numpy as np

KINDS = ('none', 'focal', 'diffuse')
TRAINING_SEED_LIMIT = 1_000_000  # Training draws below, evaluation at or above.

_STREAM = 101  # Keeps the case's draws apart from those of its anatomy.


@dataclasses.dataclass(frozen=True)
class PhantomCase:
  """A recipe of a phantom, not of a patient; equal recipes give equal voxels.

  The anatomy and the disease follow from `seed` (and `inspiration`, `fat_mm`,
  `lesion_fraction`) alone: another grid, dose or kernel shows the same chest.

  Attributes:
    seed: root of every random stream, >= 0.
    kind: 'none', 'focal' or 'diffuse' opacities.
    lesion_fraction: share of the lung volume that opacities take, in [0, 0.7].
    severe: whether the made-up patient counts as severe.
    consolidation: share of the opacities that is consolidated, in [0, 1].
    crazy_paving: strength of a reticular pattern in the ground glass, [0, 1].
    slice_spacing_mm: distance between slices.
    slice_thickness_mm: thickness that a slice averages over.
    matrix: rows and columns of a slice.
    pixel_spacing_mm: distance between pixels in the plane.
    inspiration: 1 is a full breath; 0.8 a shallow one.
    fat_mm: mean thickness of subcutaneous fat.
    noise_hu: standard deviation of the noise at the body's centre, HU.
    kernel_sharpness: 0 a smooth kernel, 1 a sharp one (edges overshoot).
    motion_mm: respiratory motion during a slice; 0 none.
    nodules: count of small solid nodules, 3 to 8 mm.
    plate_atelectases: count of plates at the bases.
    vessel_calibre: factor on the vessels' radius, 1 normal.
    dependent_hu: rise of the lung's density from front to back, HU.
    emphysema: share of the upper lung taken by holes, [0, 1].
    padded: whether voxels outside the scan circle hold padding (-1024).
  """

  seed: int
  kind: str
  lesion_fraction: float
  severe: bool
  consolidation: float
  crazy_paving: float
  slice_spacing_mm: float
  slice_thickness_mm: float
  matrix: int
  pixel_spacing_mm: float
  inspiration: float
  fat_mm: float
  noise_hu: float
  kernel_sharpness: float
  motion_mm: float
  nodules: int
  plate_atelectases: int
  vessel_calibre: float
  dependent_hu: float
  emphysema: float
  padded: bool

  def __post_init__(self):
    if self.kind not in KINDS:
      raise ValueError(f'kind must be one of {KINDS}, found {self.kind!r}.')
    if self.seed < 0:
      raise ValueError(f'seed must be >= 0, found {self.seed}.')
    if self.severe and self.kind != 'diffuse':
      raise ValueError(f"severe asks for kind 'diffuse', found {self.kind!r}.")
    if (self.kind == 'none') != (self.lesion_fraction == 0):
      raise ValueError(
        "lesion_fraction must be 0 for kind 'none' and above 0 otherwise, found "
        f'{self.lesion_fraction} with {self.kind!r}.'
      )
    for name in (
      'slice_spacing_mm',
      'slice_thickness_mm',
      'pixel_spacing_mm',
      'matrix',
      'inspiration',
    ):
      if not getattr(self, name) > 0:
        raise ValueError(f'{name} must be above 0, found {getattr(self, name)}.')

  @property
  def name(self) -> str:
    """The phantom's name as DICOM writes a person's; no person has it."""
    return f'PHANTOM^{self.seed:04d}'


def draw_case(seed: int, kind: str | None = None, **overrides) -> PhantomCase:
  """Draws a case; `overrides` replace fields without changing the other draws.

  Args:
    seed: root of every random stream.
    kind: 'none', 'focal' or 'diffuse'; None draws one of them.
    **overrides: fields of PhantomCase.
  """
  rng = np.random.default_rng([seed, _STREAM])
  drawn_kind = KINDS[rng.choice(3, p=(0.4, 0.35, 0.25))]
  kind = drawn_kind if kind is None else kind
  severe_draw, load, field_of_view = rng.uniform(size=3)
  severe = overrides.get('severe', kind == 'diffuse' and bool(severe_draw < 0.6))
  fields = dict(
    seed=seed,
    kind=kind,
    severe=severe,
    lesion_fraction=_lesion_fraction(kind, severe, load),
    consolidation=float(rng.beta(1.2, 2.5)),
    crazy_paving=float(rng.uniform(0.3, 1)) if rng.uniform() < 0.3 else 0.0,
    slice_spacing_mm=float(rng.choice((7.0, 8.0, 8.0, 10.0))),
    matrix=256,
    inspiration=float(rng.uniform(0.84, 1.08)),
    fat_mm=float(rng.gamma(6, 3) + 4),
    noise_hu=float(np.exp(rng.uniform(np.log(6), np.log(32)))),
    kernel_sharpness=float(rng.uniform(0, 1)),
    motion_mm=float(rng.uniform(1, 4)) if rng.uniform() < 0.25 else 0.0,
    nodules=int(rng.poisson(1.2)),
    plate_atelectases=int(rng.poisson(0.8)),
    vessel_calibre=float(rng.uniform(0.85, 1.3)),
    dependent_hu=float(rng.uniform(20, 130)),
    emphysema=float(rng.uniform(0.1, 0.6)) if rng.uniform() < 0.15 else 0.0,
    padded=bool(rng.uniform() < 0.5),
  )
  fields.update(overrides)
  if kind == 'none':
    fields['lesion_fraction'] = 0.0
  fields.setdefault('slice_thickness_mm', fields['slice_spacing_mm'])
  width_mm = 350 + 80 * float(field_of_view)
  fields.setdefault('pixel_spacing_mm', round(width_mm / fields['matrix'], 4))
  return PhantomCase(**fields)


def cohort(count: int | dict[str, int], seed: int, **overrides) -> list[PhantomCase]:
  """Cases with consecutive seeds from `seed` on.

  Args:
    count: how many (kinds take turns none, focal, diffuse), or how many of each
      kind, such as {'none': 90, 'focal': 60, 'diffuse': 49}.
    seed: seed of the first case.
    **overrides: fields of PhantomCase, for all of them.
  """
  if isinstance(count, dict):
    kinds = [kind for kind in KINDS for _ in range(count.get(kind, 0))]
  else:
    kinds = [KINDS[index % 3] for index in range(count)]
  return [
    draw_case(seed + index, kind, **overrides) for index, kind in enumerate(kinds)
  ]


def _lesion_fraction(kind: str, severe: bool, draw: float) -> float:
  """Log-uniform load within the kind's range (ours; severe and not overlap)."""
  low, high = {
    ('focal', False): (0.008, 0.08),
    ('diffuse', False): (0.08, 0.25),
    ('diffuse', True): (0.15, 0.5),
  }.get((kind, severe), (0.0, 0.0))
  return float(low * (high / low) ** draw) if low else 0.0
