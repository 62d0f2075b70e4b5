import numpy as np
import pytest

from covid_tf import errors
from covid_tf.predictors import answers

_SHAPE = (3, 5, 7)


def _answer(count=3):
  return [
    np.full(count, 0.25, np.float32),
    np.full((count, 28, 28), 0.5, np.float32),
    np.full((count, 14, 14), 1, np.float32),
  ]


def test_a_sound_answer_passes_unchanged():
  explanation = answers.checked_explanation(_answer(), range(3))
  for field, part in zip(explanation, _answer()):
    assert field.dtype == np.float32
    np.testing.assert_array_equal(field, part)


@pytest.mark.parametrize('dtype', [np.uint8, bool, np.int64])
def test_a_mask_of_zeros_and_ones_passes(dtype):
  mask = np.eye(5, 7).astype(dtype)[np.newaxis].repeat(3, axis=0)
  np.testing.assert_array_equal(
    answers.checked_lung_mask(mask, _SHAPE[1:], range(0 + _SHAPE[0])), mask
  )


@pytest.mark.parametrize(
  'name, place',
  [('covid_probability', (1,)), ('cam_28', (1, 3, 4)), ('cam_14', (1, 13, 0))],
)
@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf, -0.01, 1.01])
def test_a_value_out_of_range_names_output_slice_and_value(name, place, value):
  answer = _answer()
  part = ('covid_probability', 'cam_28', 'cam_14').index(name)
  answer[part][place] = value
  with pytest.raises(errors.ModelError) as caught:
    answers.checked_explanation(answer, range(32, 35))
  assert 'slice 33' in str(caught.value) and name in str(caught.value)
  assert str(answer[part][place]) in str(caught.value)


def test_rounding_is_cut_off():
  answer = _answer()
  answer[1][0, 0, 0] = np.float32(1) + np.float32(5e-7)
  answer[2][0, 0, 0] = -5e-7
  explanation = answers.checked_explanation(answer, range(3))
  assert explanation.cam_28.max() == 1 and explanation.cam_14.min() == 0


@pytest.mark.parametrize(
  'part, shape',
  [(0, (3, 1)), (0, (2,)), (1, (3, 14, 14)), (2, (3, 14, 14, 1)), (1, (28, 28))],
)
def test_a_wrong_shape_is_never_broadcast(part, shape):
  answer = _answer()
  answer[part] = np.zeros(shape, np.float32)
  with pytest.raises(errors.ModelError, match='required floats') as caught:
    answers.checked_explanation(answer, range(3))
  assert str(list(shape)) in str(caught.value)


def test_two_arrays_or_integers_are_no_explanation():
  with pytest.raises(errors.ModelError, match='found 2 arrays'):
    answers.checked_explanation(_answer()[:2], range(3))
  with pytest.raises(
    errors.ModelError, match=r'covid_probability.*floats \[3\], found int64'
  ):
    answers.checked_explanation([np.zeros(3, np.int64), *_answer()[1:]], range(3))


@pytest.mark.parametrize(
  'value, dtype, words',
  [
    (255, np.uint8, 'slice 11: required 0 or 1, found 255'),
    (-1, np.int8, 'slice 11: required 0 or 1, found -1'),
    (1, np.float32, r'integers \[3, 5, 7\], found float32'),
  ],
)
def test_another_kind_of_mask_is_refused(value, dtype, words):
  mask = np.zeros(_SHAPE, dtype)
  mask[1, 2, 3] = value
  with pytest.raises(errors.ModelError, match=words):
    answers.checked_lung_mask(mask, _SHAPE[1:], range(10, 10 + _SHAPE[0]))


def test_a_transposed_mask_is_refused():
  with pytest.raises(errors.ModelError, match=r'\[3, 5, 7\], found uint8 \[3, 7, 5\]'):
    answers.checked_lung_mask(
      np.zeros((3, 7, 5), np.uint8), _SHAPE[1:], range(0 + _SHAPE[0])
    )


def test_an_answer_that_is_no_tuple_is_refused():
  with pytest.raises(errors.ModelError, match='found 1 arrays'):
    answers.checked_explanation(None, range(3))


def test_float64_is_taken_of_own_models_and_refused_of_a_server():
  wide = [part.astype(np.float64) for part in _answer()]
  assert answers.checked_explanation(wide, range(3)).cam_28.dtype == np.float32
  named = dict(zip(('covid_probability', 'cam_28', 'cam_14'), wide, strict=True))
  with pytest.raises(errors.ModelError, match=r'required float32 \[3\], found float64'):
    answers.check_outputs('host:1', 'classifier', 'grad_cam', named, _SHAPE, 0)


def test_served_answers_and_own_ones_are_judged_alike():
  """The same values pass, are rounded or are refused, whoever gave them."""
  for value in (-0.01, -5e-7, 0, 1, 1 + 5e-7, 1.01, np.nan):
    answer = _answer()
    answer[2][1, 0, 0] = value
    named = dict(zip(('covid_probability', 'cam_28', 'cam_14'), answer, strict=True))
    if 0 <= round(value, 3) <= 1 if np.isfinite(value) else False:
      own = answers.checked_explanation(answer, range(4, 7))
      served = answers.check_outputs(
        'host:1', 'classifier', 'grad_cam', named, _SHAPE, 4
      )
      np.testing.assert_array_equal(own.cam_14, served['cam_14'])
      assert 0 <= own.cam_14.min() and own.cam_14.max() <= 1
      continue
    with pytest.raises(errors.ModelError) as own:
      answers.checked_explanation(answer, range(4, 7))
    with pytest.raises(errors.ModelError) as served:
      answers.check_outputs('host:1', 'classifier', 'grad_cam', named, _SHAPE, 4)
    tail = 'output cam_14, slice 5: required a number in [0, 1], found '
    assert tail in str(own.value) and tail in str(served.value)


def test_features_are_checked_with_their_places_in_the_study():
  answer = [
    np.zeros(2, np.float32),
    np.zeros((2, 2048), np.float32),
    np.full((2, 2048), -3, np.float32),
  ]
  assert answers.checked_features(answer, (7, 30)).gradients.min() == -3
  answer[1][1, 5] = np.nan
  with pytest.raises(errors.ModelError, match='output features, slice 30: .*found nan'):
    answers.checked_features(answer, (7, 30))
  with pytest.raises(errors.ModelError, match=r'floats \[3, 2048\], found float32'):
    answers.checked_features([np.zeros(3, np.float32), *answer[1:]], (7, 8, 9))
