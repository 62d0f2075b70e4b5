"""Hounsfield units known by their histogram: what passes, what does not."""

import tracemalloc

import hypothesis
from hypothesis import strategies as st
import nibabel
import numpy as np
import odd_series
import pydicom
import pytest
import real_ct
import synthetic_case

from covid_tf import errors
from covid_tf import readers
from covid_tf import volume
from covid_tf.readers import chest_histogram

_AFFINE = np.array([[-3.0, 0, 0, 90], [0, -3, 0, 80], [0, 0, 5, -40], [0, 0, 0, 1]])


def _chest(fat=-100, muscle=50, lung=-850, air=-1000, noise=20, seed=0, bone=True):
  """Air around a body of fat and muscle with two lungs; int16 [12, 72, 96]."""
  rng = np.random.default_rng(seed)
  row, column = np.mgrid[-1:1:72j, -1:1:96j]
  plane = np.full(row.shape, air, float)
  plane[(row / 0.8) ** 2 + (column / 0.85) ** 2 < 1] = fat
  plane[(row / 0.7) ** 2 + (column / 0.75) ** 2 < 1] = muscle
  for side in (-0.35, 0.35):
    plane[(row / 0.55) ** 2 + ((column - side) / 0.25) ** 2 < 1] = lung
  plane[((row - 0.2) / 0.1) ** 2 + (column / 0.05) ** 2 < 1] = -990  # The trachea.
  if bone:
    for height, value in zip(np.linspace(0.5, 0.68, 5), (200, 330, 480, 620, 900)):
      plane[(abs(row - height) < 0.02) & (abs(column) < 0.08)] = value
  return _stored(plane + rng.normal(0, noise, (12, *plane.shape)))


def _stored(values):
  return np.clip(np.rint(values), -1024, 32767).astype(np.int16)


def _grey(hu):
  return (np.clip(hu, -1250.0, 250) + 1250) / 1500 * 255


def _padded(values):
  values = np.array(values, float)
  values[:, :12] = -2000
  return values


# What people give instead of Hounsfield units, as a function of them.
_OTHER_VALUES = {
  'stored': lambda hu: hu + 1024.0,
  'stored by 1000': lambda hu: hu + 1000.0,
  'stored, padded': lambda hu: _padded(hu + 1024.0),
  'stored, at zero': lambda hu: np.maximum(hu + 1000.0, 0),
  'unsigned': lambda hu: hu + 32768.0,
  'subtracted twice': lambda hu: hu - 1024.0,
  'half': lambda hu: hu * 0.5,
  'grey values': _grey,
  'grey values, padded': lambda hu: _padded(_grey(hu)),
  'from -1 to 1': lambda hu: np.clip(hu, -1000, 1000) / 1000,
  'from 0 to 1, padded': lambda hu: _padded(np.clip(hu, -1000, 1000) / 2000 + 0.5),
  'inverted': lambda hu: -1.0 * hu,
  'window of the mediastinum': lambda hu: np.clip(hu, -160, 240),
  'window of the lung': lambda hu: np.clip(hu, -1250, 250),
}


@pytest.mark.parametrize('name', _OTHER_VALUES)
def test_other_values_are_known(name):
  hu = _chest()
  if name == 'window of the lung':  # Enough bone to be found at the window's end.
    hu = np.where(
      np.random.default_rng(1).random(hu.shape) < 0.06,
      120 + np.random.default_rng(2).exponential(150, hu.shape),
      hu,
    )
  assert chest_histogram.judge(_stored(hu)) is None
  assert chest_histogram.judge(_stored(_OTHER_VALUES[name](hu)))


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(
  fat=st.integers(-120, -60),
  muscle=st.integers(10, 110),
  noise=st.integers(1, 60),
  lung=st.integers(-980, 60),
  air=st.sampled_from((-1024, -1000, -970)),
  obese=st.booleans(),
  inside=st.booleans(),
  seed=st.integers(0, 99),
)
def test_lungs_need_not_be_aerated(fat, muscle, noise, lung, air, obese, inside, seed):
  """Emphysema to white lungs, any size of patient, also a crop inside the body."""
  hu = _chest(fat, fat if obese else muscle, lung, air, noise, seed)
  if inside:
    hu = hu[:, 20:52, 24:72]
  assert chest_histogram.judge(hu) is None
  stored = chest_histogram.judge(_stored(hu + 1024.0))
  assert stored and ('air' in stored or 'stored' in stored)


def test_a_lost_rescale_is_named():
  reason = chest_histogram.judge(_stored(_padded(_chest() + 1024.0)))
  assert 'stored values (HU + 1024' in reason and 'only bone and metal' in reason


@pytest.mark.parametrize('voxels', (1, 5))
def test_a_few_voxels_of_air_prove_nothing(voxels):
  hu = _stored(_chest() + 1024.0)
  hu.flat[:voxels] = -1000
  assert chest_histogram.judge(hu)
  grey = _stored(_grey(_chest()))
  grey.flat[:voxels] = -1000
  assert 'too few' in chest_histogram.judge(grey)


def test_made_patients_and_phantoms_of_one_tissue_pass():
  assert chest_histogram.judge(synthetic_case.make_volume().hu) is None
  hu = np.full((8, 64, 64), -1024, np.int16)
  hu[:, 16:48, 16:48] = 40
  assert chest_histogram.judge(hu) is None
  hu[:, 16:48, 16:48] = np.random.default_rng(0).normal(0, 10, (8, 32, 32))
  assert chest_histogram.judge(hu) is None


def test_nifti_is_refused_and_dicom_is_reported(tmp_path):
  stored = _stored(_padded(_chest() + 1024.0))
  nibabel.save(
    nibabel.Nifti1Image(stored.transpose(2, 1, 0), _AFFINE), tmp_path / 'ct.nii.gz'
  )
  with pytest.raises(errors.CTReadError, match='no Hounsfield units.*stored values'):
    readers.read_ct(tmp_path / 'ct.nii.gz')
  slices = odd_series.series(_stored(_chest() + 1024.0), intercept=0)
  (warning,) = readers.read_ct(odd_series.save(slices, tmp_path / 'lost')).warnings
  assert warning.endswith('is this a chest?')


def _real_chests():
  series = sorted({path.parent for path in real_ct.folder().glob('**/*.dcm')})
  for folder in series:
    planes = {}
    for path in sorted(folder.glob('*.dcm'))[::3]:
      ds = pydicom.dcmread(path)
      if 'RescaleSlope' in ds and ds.get('Modality', 'CT') == 'CT':
        hu = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
        planes.setdefault(hu.shape, []).append(_stored(hu))
    yield from ((folder.name, np.stack(stack)) for stack in planes.values())


def test_every_real_ct_passes_and_none_of_its_other_values():
  rng = np.random.default_rng(0)
  for name, hu in _real_chests():
    assert chest_histogram.judge(hu) is None, name
    white = np.where(
      (hu > -980) & (hu < -500) & (rng.random(hu.shape) < 0.8),
      rng.integers(0, 61, hu.shape),
      hu,
    )
    rows, columns = hu.shape[1:]
    inside = (
      slice(None),
      slice(rows * 3 // 10, rows * 7 // 10),
      slice(columns * 3 // 10, columns * 7 // 10),
    )
    for good in (white, hu[inside], white[inside]):
      assert chest_histogram.judge(_stored(good)) is None, name
    for kind, change in _OTHER_VALUES.items():
      assert chest_histogram.judge(_stored(change(hu))), (name, kind)
      if kind.startswith('stored'):
        assert chest_histogram.judge(_stored(change(white[inside]))), (name, kind)


@pytest.mark.parametrize('most', [1 << 22, 5000, 700])
@pytest.mark.parametrize('turned', [False, True])
def test_the_histogram_is_that_of_an_even_sample_of_the_whole_volume(
  monkeypatch, most, turned
):
  monkeypatch.setattr(chest_histogram, '_MOST_SAMPLED', most)
  hu = _chest()[:5, :41, :37]
  hu = np.asfortranarray(hu) if turned else hu
  sample = np.ravel(hu)[:: max(1, hu.size // most) | 1]
  histogram = chest_histogram._Histogram(hu)
  assert histogram.total == sample.size
  found = {
    value + volume.AIR_HU: count
    for value, count in enumerate(histogram.counts)
    if count
  }
  assert found == dict(zip(*np.unique(sample, return_counts=True)))


def test_judging_a_volume_takes_little_memory_beside_it():
  hu = np.tile(_chest(), (5, 4, 3))
  tracemalloc.start()
  try:
    assert chest_histogram.judge(hu) is None
    _, peak = tracemalloc.get_traced_memory()
  finally:
    tracemalloc.stop()
  assert peak < 0.25 * hu.nbytes
