"""Parametric map: the localization map on every slice of the CT."""

import highdicom
from highdicom import pm
from highdicom.sr import coding
import numpy as np
import pydicom

from covid_tf import results
from covid_tf.storage.dicom import codes
from covid_tf.storage.dicom import frames
from covid_tf.storage.dicom import identity
from covid_tf.storage.dicom import source as source_lib

# Of uint16: values are 7.6e-6 off at most, a sum over the counted voxels 1e-5.
_STEPS = 65535


def parametric_map(
  source: source_lib.SourceSeries,
  result: results.CaseResult,
  *,
  map_form: str = 'uint16',
) -> pydicom.Dataset:
  """The parametric map of a result.

  Args:
    source: the series that was scored; the result lies on its grid.
    result: the scored study.
    map_form: 'uint16' or 'float32', as of `objects.MapForm`.

  Returns:
    A Parametric Map with a frame for every slice and its final UIDs: RLE of uint16 with
    the slope in its Real World Value Mapping, or float32 in explicit VR little endian.
  """
  is_float = map_form == 'float32'
  dtype = np.float32 if is_float else np.uint16
  with identity.quietly():
    made = pm.ParametricMap(
      source_images=frames.stand_ins(source),
      pixel_array=np.zeros((len(source.headers), 1, 1), dtype),
      contains_recognizable_visual_features=False,
      real_world_value_mappings=[_mapping(is_float)],
      voi_lut_transformations=[_window(is_float)],
      content_label='MAP',
      content_description=identity.PARAMETRIC_MAP.description,
      content_creator_name='',
      contributing_equipment=identity.equipment(result),
      content_qualification=highdicom.ContentQualificationValues.RESEARCH,
      **identity.options(source, result, identity.PARAMETRIC_MAP),
    )
    made.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [_anatomy()]
    frames.sort(made)
    localization = result.localization
    if is_float:
      frames.put_float(made, source, lambda _, index: localization.slice_map(index))
    else:
      frames.put_rle(made, source, lambda _, index: _steps(localization, index))
    frames.refer(made, source)
    identity.finish(made)
  return made


def _steps(localization: results.LocalizationMap, index: int) -> np.ndarray:
  """uint16 [row, column] of a slice."""
  return np.rint(localization.slice_map(index) * np.float32(_STEPS)).astype(np.uint16)


def _mapping(is_float: bool) -> pm.RealWorldValueMapping:
  return pm.RealWorldValueMapping(
    lut_label='MODEL_ATTENTION',
    lut_explanation='Grad-CAM of positive slices, 0 to 1',
    unit=codes.NO_UNITS,
    value_range=(0.0, 1.0) if is_float else (0, _STEPS),
    slope=1.0 if is_float else 1 / _STEPS,
    intercept=0.0,
    quantity_definition=codes.GRAD_CAM,
  )


def _window(is_float: bool) -> highdicom.VOILUTTransformation:
  """All values, as grey from black to white."""
  high = 1 if is_float else _STEPS
  return highdicom.VOILUTTransformation(window_center=high / 2, window_width=high)


def _anatomy() -> pydicom.Dataset:
  """Both lungs; dcmqi's reader of maps ends without it."""
  item = pydicom.Dataset()
  item.FrameLaterality = 'B'
  item.AnatomicRegionSequence = [coding.CodedConcept.from_code(codes.LUNG)]
  return item
