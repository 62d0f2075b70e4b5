"""Segmentation: the lungs, and the region that the Corona score counts."""

import highdicom
from highdicom import color
from highdicom import seg
import numpy as np
import pydicom

from covid_tf import results
from covid_tf.storage.dicom import codes
from covid_tf.storage.dicom import frames
from covid_tf.storage.dicom import identity
from covid_tf.storage.dicom import source as source_lib

LUNGS, ATTENTION = 1, 2  # Segment numbers.
ATTENTION_DESCRIPTION = (
  "Region that the Corona score counts: where a slice classifier's Grad-CAM map is "
  'above {:g} in slices detected positive. No drawn opacity.'
)
_LUNGS_DESCRIPTION = 'Lungs as the score uses them'
# CIELab of a light blue and an orange: apart for eyes that miss red or green too.
_LUNGS_COLOR = color.CIELabColor(74.0, -10.0, -26.0)
_ATTENTION_COLOR = color.CIELabColor(67.0, 42.0, 72.0)


def segmentation(
  source: source_lib.SourceSeries, result: results.CaseResult
) -> pydicom.Dataset:
  """The segmentation object of a result.

  Two segments always, and a frame of each for every slice, empty or not: viewers stop
  at empty segments that are left out, and shift frames where some are missing.

  Args:
    source: the series that was scored; the result lies on its grid.
    result: the scored study.

  Returns:
    A Segmentation (BINARY, explicit VR little endian), with its final UIDs.
  """
  with identity.quietly():
    made = seg.Segmentation(
      source_images=frames.stand_ins(source),
      pixel_array=np.zeros((len(source.headers), 1, 1, 2), np.uint8),
      segmentation_type=seg.SegmentationTypeValues.BINARY,
      segment_descriptions=_descriptions(source, result),
      omit_empty_frames=False,
      content_label='COVID_TF',
      content_description=identity.SEGMENTATION.description,
      content_creator_name='',
      contributing_equipment=identity.equipment(result),
      content_qualification=highdicom.ContentQualificationValues.RESEARCH,
      coding_schemes=identity.coding_schemes(),
      **identity.options(source, result, identity.SEGMENTATION),
    )
    frames.sort(made)
    frames.put_bits(made, source, lambda number, index: _frame(result, number, index))
    frames.refer(made, source)
    made.SegmentsOverlap = 'YES' if _overlap(result) else 'NO'
    identity.finish(made)
  return made


def _frame(result: results.CaseResult, number: int | None, index: int) -> np.ndarray:
  """bool [row, column] of one segment in one slice."""
  if number == LUNGS:
    return result.lung_mask[index] != 0
  # A plain float: as Eq. 1 compares, strictly and in float32.
  return result.localization.slice_map(index) > float(result.thresholds.map)


def _overlap(result: results.CaseResult) -> bool:
  """Whether a voxel of the lungs is counted."""
  # Most cases end at the first slice: a map is fused each time it is asked for.
  return any(
    (_frame(result, LUNGS, index) & _frame(result, ATTENTION, index)).any()
    for index in result.localization.slices
  )


def _descriptions(
  source: source_lib.SourceSeries, result: results.CaseResult
) -> list[seg.SegmentDescription]:
  attention = ATTENTION_DESCRIPTION.format(result.thresholds.map)
  described = (
    ('Lungs', codes.ANATOMICAL_STRUCTURE, codes.LUNG, _LUNGS_DESCRIPTION),
    (
      'Model attention',
      codes.MORPHOLOGICALLY_ABNORMAL,
      codes.MODEL_ATTENTION,
      attention,
    ),
  )
  made = []
  for number, (label, category, kind, text) in enumerate(described, start=1):
    tracking_id, tracking_uid = identity.tracking(source, result, label.lower())
    description = seg.SegmentDescription(
      segment_number=number,
      segment_label=label,
      segmented_property_category=category,
      segmented_property_type=kind,
      algorithm_type=seg.SegmentAlgorithmTypeValues.AUTOMATIC,
      algorithm_identification=identity.algorithm(result),
      tracking_uid=tracking_uid,
      tracking_id=tracking_id,
      anatomic_regions=None if number == LUNGS else [codes.LUNG],
      display_color=_LUNGS_COLOR if number == LUNGS else _ATTENTION_COLOR,
    )
    description.SegmentDescription = text
    made.append(description)
  return made
