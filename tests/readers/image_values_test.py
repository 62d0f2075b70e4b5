"""Position, orientation and rescale of one image: any true one, no damaged one."""

import hypothesis
from hypothesis import strategies as st
import numpy as np
import odd_series
from pydicom import dataelem
from pydicom import tag as pydicom_tag
import pytest
from scipy.spatial import transform

from covid_tf.readers import elements
from covid_tf.readers import image_values

_ANGLES = st.floats(-180, 180)
_MILLIMETRES = st.floats(-1e4, 1e4)


def _elements(**values):
  """Raw elements of texts, as a header has them."""
  return {
    getattr(elements, name): dataelem.RawDataElement(
      pydicom_tag.BaseTag(getattr(elements, name)),
      'DS',
      len(text),
      text.encode(),
      0,
      False,
      True,
    )
    for name, text in values.items()
  }


def _text(numbers):
  return '\\'.join(f'{number:.10g}' for number in numbers)


def _placed(**changes):
  values = {
    'PIXEL_SPACING': '0.75\\0.5',
    'IMAGE_POSITION_PATIENT': '1\\2\\3',
    'IMAGE_ORIENTATION_PATIENT': _text(odd_series.AXIAL),
  }
  return _elements(**values | changes)


@hypothesis.given(
  angles=st.tuples(_ANGLES, _ANGLES, _ANGLES),
  position=st.tuples(_MILLIMETRES, _MILLIMETRES, _MILLIMETRES),
  spacing=st.tuples(st.floats(0.05, 5), st.floats(0.05, 5)),
)
def test_any_place_in_the_patient(angles, position, spacing):
  axes = transform.Rotation.from_euler('xyz', angles, degrees=True).as_matrix()
  plane = image_values.plane_of(
    _placed(
      IMAGE_ORIENTATION_PATIENT=_text((*axes[0], *axes[1])),
      IMAGE_POSITION_PATIENT=_text(position),
      PIXEL_SPACING=_text(spacing),
    )
  )
  np.testing.assert_allclose(plane.row_direction, axes[0], atol=1e-8)
  np.testing.assert_allclose(plane.column_direction, axes[1], atol=1e-8)
  np.testing.assert_allclose(plane.position, position, rtol=1e-8)
  np.testing.assert_allclose(plane.spacing_mm, spacing, rtol=1e-8)
  assert np.linalg.norm(plane.normal) == pytest.approx(1)


@pytest.mark.parametrize(
  'changes, words',
  (
    ({'PIXEL_SPACING': '0.75'}, '2 finite numbers'),
    ({'PIXEL_SPACING': '0.75\\5.1'}, 'between 0.05 and 5 mm, found 0.75, 5.1'),
    ({'IMAGE_POSITION_PATIENT': '1\\2\\2e5'}, '200000 mm away'),
    ({'IMAGE_ORIENTATION_PATIENT': '1\\0\\0\\1\\0\\0'}, 'product 1'),
    ({'IMAGE_ORIENTATION_PATIENT': '2\\0\\0\\0\\1\\0'}, 'lengths 2 and 1'),
  ),
)
def test_places_that_cannot_be_true(changes, words):
  with pytest.raises(elements.ElementError, match=words):
    image_values.plane_of(_placed(**changes))


@pytest.mark.parametrize(
  'unit, said',
  (('HU', ''), ('Hounsfield units', ''), ('', ''), ('CT number', 'CT number')),
)
def test_units_that_do_not_say_hu_are_kept(unit, said):
  group = _elements(RESCALE_SLOPE='2', RESCALE_INTERCEPT='-1024', RESCALE_TYPE=unit)
  rescale = image_values.rescale_of({}, group, None)
  assert (rescale.slope, rescale.intercept, rescale.unit) == (2, -1024, said)


@pytest.mark.parametrize(
  'changes, words',
  (
    ({'RESCALE_SLOPE': '-1'}, 'must be above 0'),
    ({'RESCALE_INTERCEPT': '1e7'}, 'no Hounsfield units'),
    ({'RESCALE_TYPE': 'Z_EFF'}, "must be HU, found 'Z_EFF'"),
  ),
)
def test_rescales_that_give_no_hu(changes, words):
  values = {'RESCALE_SLOPE': '1', 'RESCALE_INTERCEPT': '0'} | changes
  with pytest.raises(elements.ElementError, match=words):
    image_values.rescale_of({}, _elements(**values), None)
