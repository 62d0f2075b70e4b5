"""A made-up patient with known sides: two lungs, a heart, lesions where asked.

The anatomy is a function of patient millimetres, sampled on any grid: the same
patient whatever the affine, so a test can flip an axis and expect the same picture.
"""

import dataclasses
import pathlib

import nibabel as nib
import numpy as np

from covid_tf import lung_measures
from covid_tf import results
from covid_tf import volume as volume_lib
from covid_tf.analysis import densities
from covid_tf.analysis import lungs as lungs_lib
from covid_tf.storage import maps

# Centre and half axes in LPS millimetres: x to the left, y to the back, z to the head.
_BODY = ((0, 0, 0), (175, 115, 400))
_RIGHT_LUNG = ((-75, -5, 0), (58, 85, 130))
_LEFT_LUNG = ((75, -5, 0), (54, 85, 130))
_HEART = ((18, -40, -60), (55, 45, 60))
_SPINE = ((0, 70, 0), (20, 22, 400))

# Lesions of the default patient: right, dorsal and basal; a small left one.
LESIONS = (((-85, 45, -70), (30, 28, 30)), ((92, 30, 10), (18, 18, 16)))


def axial_affine(
  spacing_mm=(8.0, 3.0, 3.0), shape=(34, 84, 128), reverse=()
) -> np.ndarray:
  """Affine of a grid centred on the patient; `reverse` lists axes stored backwards."""
  affine = np.eye(4)
  # Slice steps go to the head (z), rows to the back (y), columns to the left (x).
  for axis, world in ((0, 2), (1, 1), (2, 0)):
    step = spacing_mm[axis] * (-1 if axis in reverse else 1)
    affine[:3, axis] = 0
    affine[world, axis] = step
    affine[world, 3] = -step * (shape[axis] - 1) / 2
  return affine


def make_volume(
  affine: np.ndarray | None = None, shape=(34, 84, 128), lesions=LESIONS, **fields
) -> volume_lib.CTVolume:
  """The patient's CT on the grid of `affine`; `fields` go to CTVolume."""
  affine = axial_affine(shape=shape) if affine is None else affine
  points = _points_mm(affine, shape)
  lungs = _lungs(points)
  hu = np.full(shape, -1024, np.int16)
  hu[_inside(points, _BODY)] = 30
  hu[_inside(points, _SPINE)] = 300
  rng = np.random.default_rng(7)
  hu[lungs] = rng.normal(-850, 25, int(lungs.sum()))
  for lesion in lesions:
    hu[lungs & _inside(points, lesion)] = -350
  fields = {
    'study_uid': '1.2.826.0.1.3680043.8.498.1',
    'series_uid': '1.2.826.0.1.3680043.8.498.2',
    'acquisition_date': '2020-03-14',
  } | fields
  return volume_lib.CTVolume(hu=hu, affine=affine, **fields)


def write_nifti(path: pathlib.Path, volume: volume_lib.CTVolume) -> pathlib.Path:
  """Writes a CT as people have it in NIfTI; returns the path."""
  image = nib.Nifti1Image(volume.hu.T, maps.ras_affine(volume.affine))
  image.header.set_xyzt_units('mm')
  nib.save(image, path)
  return path


def make_result(
  volume: volume_lib.CTVolume, lesions=LESIONS, map_threshold=0.6, **changes
) -> results.CaseResult:
  """What a scorer that sees the lesions would say; `changes` replace fields."""
  points = _points_mm(volume.affine, volume.shape)
  lung_mask = _lungs(points).astype(np.uint8)
  heat = np.zeros(volume.shape, np.float32)
  for lesion in lesions:
    heat = np.maximum(heat, _bump(points, lesion))
  strength = heat.reshape(len(heat), -1).max(axis=1)
  probability = (0.03 + 0.95 * strength).astype(np.float32)
  positive = np.flatnonzero(probability > 0.5)
  box = _box(lung_mask)
  maps = heat[positive][:, box.rows, box.columns]
  result = _numbers(volume, lung_mask, box, positive, maps, map_threshold)
  return dataclasses.replace(result, slice_probability=probability, **changes)


def measured(
  volume: volume_lib.CTVolume, result: results.CaseResult
) -> results.CaseResult:
  """The result with densities and zone scores, as `analyze` measures them."""
  regions = lungs_lib.find_regions(result.lung_mask, volume.affine)
  zones = densities.count_lung_voxels(volume.hu, result.lung_mask, regions)
  counted = result.localization.to_volume() > result.thresholds.map
  inside = counted & (result.lung_mask > 0)
  opacity = densities.VoxelCounts()
  opacity.add(volume.hu[inside])
  involved = densities.count_lung_voxels(volume.hu, inside.astype(np.uint8), regions)
  schemes = lung_measures.DensitySchemes()
  return dataclasses.replace(
    result,
    densities=densities.densities(zones, opacity, volume.voxel_volume_mm3, schemes),
    zone_score=densities.zone_score(
      densities.involved_voxels(involved.counts.sum(axis=1), zones)
    ),
    zone_score_by_density=densities.zone_score(densities.dense_voxels(zones, schemes)),
  )


def _numbers(volume, lung_mask, box, positive, maps, map_threshold):
  voxel_cm3 = volume.voxel_volume_mm3 / 1000
  counted = np.where(maps > map_threshold, maps, 0).astype(np.float64) * voxel_cm3
  inside = counted * lung_mask[positive][:, box.rows, box.columns]
  by_slice = np.zeros(volume.shape[0])
  by_slice[positive] = counted.sum(axis=(1, 2))
  lung_voxels = int(lung_mask.sum())
  return results.CaseResult(
    corona_score_cm3=float(by_slice.sum()),
    corona_score_in_lung_cm3=float(inside.sum()),
    corona_score_by_slice_cm3=by_slice,
    corona_score_by_region_cm3=_regions(volume, lung_mask, box, positive, inside),
    case_detected=None,
    lung_volume_cm3=lung_voxels * voxel_cm3,
    involved_lung_fraction=float(np.count_nonzero(inside)) / lung_voxels,
    lung_outside_box_fraction=0.0,
    slice_probability=np.zeros(volume.shape[0], np.float32),
    positive_slices=tuple(int(i) for i in positive),
    lung_box=box,
    lung_mask=lung_mask,
    localization=results.LocalizationMap(
      volume.shape, box, tuple(int(i) for i in positive), maps
    ),
    thresholds=results.Thresholds(map=map_threshold),
    models=(_identity('lungs', 3), _identity('classifier', 7)),
    warnings=volume.warnings,
    shape=volume.shape,
    spacing_mm=volume.spacing_mm,
    voxel_volume_mm3=volume.voxel_volume_mm3,
    affine=volume.affine,
    study_uid=volume.study_uid,
    series_uid=volume.series_uid,
    acquisition_date=volume.acquisition_date,
    patient_key=volume.patient_key,
    software='covid_tf 0.1.0',
  )


def _regions(volume, lung_mask, box, positive, inside):
  """In-lung score by side (x < 0 is the patient's right) and by third of height."""
  index = np.stack(
    np.meshgrid(
      positive,
      np.arange(box.row0, box.row1),
      np.arange(box.column0, box.column1),
      indexing='ij',
    ),
    axis=-1,
  )
  x, _, z = np.moveaxis(volume.index_to_lps_mm(index), -1, 0)
  lung_z = volume.index_to_lps_mm(np.argwhere(lung_mask))[:, 2]
  low, high = lung_z.min(), lung_z.max()
  third = np.clip(((z - low) / (high - low) * 3).astype(int), 0, 2)
  return {
    'left': float(inside[x > 0].sum()),
    'right': float(inside[x <= 0].sum()),
    'apical': float(inside[third == 2].sum()),
    'middle': float(inside[third == 1].sum()),
    'basal': float(inside[third == 0].sum()),
  }


def _identity(name, version):
  window = (-1000.0, 0.0) if name == 'lungs' else (-1350.0, 150.0)
  return results.ModelIdentity(
    name, version, (name[0] * 4 + '0123456789ab') * 4, {'window_hu': window}
  )


def _points_mm(affine, shape):
  index = np.stack(np.meshgrid(*map(np.arange, shape), indexing='ij'), axis=-1)
  return index @ affine[:3, :3].T + affine[:3, 3]


def _inside(points, ellipsoid):
  return _radius(points, ellipsoid) < 1


def _radius(points, ellipsoid):
  centre, half_axes = (np.asarray(part, float) for part in ellipsoid)
  return np.linalg.norm((points - centre) / half_axes, axis=-1)


def _bump(points, ellipsoid):
  return np.exp(-0.7 * _radius(points, ellipsoid) ** 2).astype(np.float32)


def _lungs(points):
  lungs = _inside(points, _RIGHT_LUNG) | _inside(points, _LEFT_LUNG)
  return lungs & ~_inside(points, _HEART)


def _box(lung_mask):
  rows = np.flatnonzero(lung_mask.any(axis=(0, 2)))
  columns = np.flatnonzero(lung_mask.any(axis=(0, 1)))
  return results.LungBox(
    int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
  )
