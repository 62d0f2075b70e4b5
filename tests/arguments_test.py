"""Arguments of another kind: what is required, what was found, what to do."""

import fake_models
import numpy as np
import pytest
import synthetic_case

import covid_tf
from covid_tf import errors

_AFFINE = synthetic_case.axial_affine((12.0, 6.0, 6.0), (24, 42, 64))


class _ForeignImage:
  """What another library's image may look like: voxels behind methods."""

  def GetSize(self):  # noqa: N802
    return 64, 42, 24


def _volume():
  return synthetic_case.make_volume(_AFFINE, (24, 42, 64))


@pytest.mark.parametrize(
  'call, words',
  [
    (lambda: covid_tf.read_ct(np.zeros((2, 3, 4))), ('path', 'ndarray', 'int16')),
    (lambda: covid_tf.read_ct(None), ('path', 'NoneType')),
    (lambda: covid_tf.read_ct(3), ('path', 'int')),
    (lambda: covid_tf.read_ct('x', series_uid=7), ('series_uid', 'int')),
    (
      lambda: covid_tf.analyze('study', fake_models.FakeModels()),
      ('study', 'no such file'),
    ),
    (
      lambda: covid_tf.analyze(np.zeros((2, 3, 4)), fake_models.FakeModels()),
      ('volume', 'ndarray', 'CTVolume.from_array'),
    ),
    (
      lambda: covid_tf.analyze(_ForeignImage(), fake_models.FakeModels()),
      ('volume', '_ForeignImage', 'SimpleITK', 'nibabel', 'read_ct'),
    ),
    (
      lambda: covid_tf.analyze(None, fake_models.FakeModels()),
      ('volume', 'NoneType', 'read_ct'),
    ),
    (lambda: covid_tf.analyze(_volume(), 'exported'), ('models', 'str', 'load_models')),
    (
      lambda: covid_tf.analyze(
        _volume(), fake_models.FakeModels(), thresholds={'map': 0.6}
      ),
      ('thresholds', 'dict', 'Thresholds'),
    ),
    (lambda: covid_tf.connect(None), ('address', 'NoneType', 'localhost:8500')),
    (lambda: covid_tf.load_models(123), ('directory', 'int')),
  ],
)
def test_functions_raise_an_error_of_ours(call, words):
  with pytest.raises((errors.UsageError, errors.CTReadError)) as caught:
    call()
  assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
  'hu, affine, words',
  [
    (_ForeignImage(), np.eye(4), ('hu', 'int16', '_ForeignImage')),
    ([[[0]]], np.eye(4), ('hu', 'list')),
    (np.zeros((2, 3, 4), np.float32), np.eye(4), ('int16', 'float32', 'np.rint')),
    (np.zeros((2, 3, 4), np.uint16), np.eye(4), ('int16', 'uint16')),
    (np.zeros((3, 4), np.int16), np.eye(4), ('2 axes',)),
    (np.zeros((2, 3, 4), np.int16), np.eye(3), ('affine', '[4, 4]')),
    (np.zeros((2, 3, 4), np.int16), None, ('affine',)),
    (np.zeros((2, 3, 4), np.int16), 'LPS', ('affine', 'str')),
  ],
)
def test_a_volume_says_what_it_is_made_of(hu, affine, words):
  with pytest.raises(ValueError) as caught:
    covid_tf.CTVolume(hu, affine)
  assert all(word in str(caught.value) for word in words)
