"""From lungs, probabilities and map to the numbers of a case, without any network.

What `analyze` finds by the networks and `rescore` reads from files is scored here, so
that both give the same bits.
"""

import dataclasses
import hashlib

import numpy as np

from covid_tf import lung_measures
from covid_tf import results
from covid_tf import version
from covid_tf import volume as volume_lib
from covid_tf.analysis import corona_score
from covid_tf.analysis import densities as densities_lib
from covid_tf.analysis import key_planes
from covid_tf.analysis import label_regions
from covid_tf.analysis import lungs as lungs_lib


@dataclasses.dataclass(frozen=True)
class Options:
  """How a study is measured beside its score.

  Attributes:
    density_schemes: bins and percentiles of densities.
    label_map: further regions to measure, checked; or None.
  """

  density_schemes: lung_measures.DensitySchemes = lung_measures.DensitySchemes()
  label_map: label_regions.LabelMap | None = None


@dataclasses.dataclass(frozen=True)
class Findings:
  """What a study is scored by: the networks' answers, or what was stored of them.

  Attributes:
    lungs: of the case.
    slice_probability: float32 [S]; COVID probability of every slice.
    localization: the map of the positive slices, whose slices these are.
    thresholds: those used.
    models: who answered, lungs first.
    warnings: what a reader of the score should know.
    demo_models: whether demo models answered.
    edits: what a person changed; None where nothing was.
    hu_sha256: of the CT's voxels; None: found when it is scored.
    repeatability: of the score, where the classifier's card says it.
    options: how it is measured beside its score.
  """

  lungs: lungs_lib.Lungs
  slice_probability: np.ndarray
  localization: results.LocalizationMap
  thresholds: results.Thresholds
  models: tuple[results.ModelIdentity, ...]
  warnings: tuple[str, ...] = ()
  demo_models: bool = False
  edits: results.Edits | None = None
  hu_sha256: str | None = None
  repeatability: lung_measures.Repeatability | None = None
  options: Options = Options()


def score(volume: volume_lib.CTVolume, findings: Findings) -> results.CaseResult:
  """Measures what was found in a study.

  Args:
    volume: the CT, with its original slices.
    findings: what was found in it, on its grid.

  Returns:
    The scored study.

  Raises:
    errors.UsageError: the label map covers no lung.
  """
  regions = lungs_lib.find_regions(findings.lungs.mask, volume.affine)
  seen = _seen(volume, findings, regions)
  result = _result(volume, findings, regions, seen)
  result = dataclasses.replace(
    result, key_planes=key_planes.of_volume(volume, seen.planes.places(result))
  )
  if seen.tally is None:
    return result
  return _with_regions(result, volume, seen.tally, findings.options.density_schemes)


@dataclasses.dataclass(frozen=True)
class _Seen:
  """What is counted while the map is fused, slice by slice, once.

  Attributes:
    corona: the score of the map.
    opacity: voxels of the CT where the map counts.
    planes: where the key planes of the patient lie.
    tally: regions of a label map; None without one.
  """

  corona: corona_score.CoronaScore
  opacity: densities_lib.VoxelCounts
  planes: key_planes.KeyPlaneTally
  tally: label_regions.RegionTally | None


def _seen(
  volume: volume_lib.CTVolume, findings: Findings, regions: lungs_lib.LungRegions
) -> _Seen:
  label_map = findings.options.label_map
  tally = label_regions.RegionTally(label_map) if label_map else None
  opacity = densities_lib.VoxelCounts()
  planes = key_planes.KeyPlaneTally(volume.affine, volume.shape)
  observers: list[corona_score.Observer] = [
    lambda slice_, rows, columns, _: opacity.add(volume.hu[slice_, rows, columns]),
    planes.observe,
  ]
  corona = corona_score.corona_score(
    findings.localization,
    findings.lungs,
    regions,
    volume.voxel_volume_mm3,
    findings.thresholds.map,
    (*observers, tally.observe) if tally else observers,
  )
  return _Seen(corona, opacity, planes, tally)


def _result(
  volume: volume_lib.CTVolume,
  findings: Findings,
  regions: lungs_lib.LungRegions,
  seen: _Seen,
) -> results.CaseResult:
  """All of a result but what is measured by its own numbers."""
  lungs, corona = findings.lungs, seen.corona
  zones = densities_lib.count_lung_voxels(volume.hu, lungs.mask, regions)
  schemes = findings.options.density_schemes
  case_threshold = findings.thresholds.case_corona_score_cm3
  return results.CaseResult(
    corona_score_cm3=corona.total_cm3,
    corona_score_in_lung_cm3=corona.in_lung_cm3,
    corona_score_by_slice_cm3=corona.by_slice_cm3,
    corona_score_by_region_cm3=corona.by_region_cm3,
    case_detected=(
      None if case_threshold is None else corona.total_cm3 > case_threshold
    ),
    lung_volume_cm3=lungs.volume_cm3,
    involved_lung_fraction=corona.involved_lung_fraction,
    lung_outside_box_fraction=lungs.outside_box_fraction,
    slice_probability=findings.slice_probability,
    positive_slices=findings.localization.slices,
    lung_box=lungs.box,
    lung_mask=lungs.mask,
    localization=findings.localization,
    thresholds=findings.thresholds,
    models=findings.models,
    warnings=findings.warnings,
    shape=volume.shape,
    spacing_mm=volume.spacing_mm,
    voxel_volume_mm3=volume.voxel_volume_mm3,
    affine=volume.affine,
    study_uid=volume.study_uid,
    series_uid=volume.series_uid,
    acquisition_date=volume.acquisition_date,
    patient_key=volume.patient_key,
    software=version.SOFTWARE,
    stored_grid=volume.stored_grid,
    demo_models=findings.demo_models,
    acquisition=volume.acquisition,
    edits=findings.edits,
    hu_sha256=findings.hu_sha256 or hu_digest(volume),
    densities=densities_lib.densities(
      zones, seen.opacity, volume.voxel_volume_mm3, schemes
    ),
    zone_score=densities_lib.zone_score(
      densities_lib.involved_voxels(corona.involved_voxels_by_zone, zones)
    ),
    zone_score_by_density=densities_lib.zone_score(
      densities_lib.dense_voxels(zones, schemes)
    ),
    repeatability=findings.repeatability,
  )


def _with_regions(
  result: results.CaseResult,
  volume: volume_lib.CTVolume,
  tally: label_regions.RegionTally,
  schemes: lung_measures.DensitySchemes,
) -> results.CaseResult:
  measured = tally.measured(volume, result.lung_mask, schemes)
  lobes = label_regions.lobe_score(measured)
  said = label_regions.warnings(measured, lobes, result.lung_volume_cm3)
  return dataclasses.replace(
    result,
    label_regions=measured,
    lobe_score=lobes,
    warnings=(*result.warnings, *said),
  )


def hu_digest(volume: volume_lib.CTVolume) -> str:
  """SHA-256 of a CT's voxels: whether a stored result is one of this CT.

  Of NIfTI nothing else can tell, since it has no series UID.
  """
  digest = hashlib.sha256()
  for plane in volume.hu:
    digest.update(np.ascontiguousarray(plane, '<i2').data)
  return digest.hexdigest()
