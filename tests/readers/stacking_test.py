"""Several images at one place: what distinguishes them, and which one is read."""

import datetime

import numpy as np
import odd_series
import pydicom
import pytest

from covid_tf import cli
from covid_tf import errors
from covid_tf import readers


def _refusal(folder, **options) -> str:
  with pytest.raises(errors.CTReadError) as caught:
    readers.read_ct(folder, **options)
  return str(caught.value)


def _phases(folder, *values):
  """Phases of one series; each value is a function of the slice's index to fields."""
  slices = []
  for number, fields in enumerate(values):
    for index, ds in enumerate(odd_series.series(odd_series.chest_hu(seed=number))):
      ds.SOPInstanceUID += f'.{number + 1}'
      for keyword, value in fields(index).items():
        setattr(ds, keyword, value)
      slices.append(ds)
  odd_series.save(slices, folder)


def _constant(keyword, value):
  return lambda index: {keyword: value}


@pytest.mark.parametrize(
  'keyword, values, listed',
  (
    ('TemporalPositionIdentifier', (1, 2), '1 (8 slices), 2 (8 slices)'),
    ('TemporalPositionIndex', (1, 2), '1 (8 slices), 2 (8 slices)'),
    ('NominalPercentageOfCardiacPhase', (40.0, 75.0), '40 (8 slices), 75 (8 slices)'),
    ('TriggerTime', ('450', '1050.5'), '450 (8 slices), 1050.5 (8 slices)'),
    ('AcquisitionNumber', (9, 10), '9 (8 slices), 10 (8 slices)'),
    ('ContentTime', ('101500', '101530'), '101500 (8 slices), 101530 (8 slices)'),
    ('AcquisitionTime', ('101500', '101530'), '101500 (8 slices), 101530 (8'),
    ('ConvolutionKernel', ('B30f', 'B70f'), 'B30f (8 slices), B70f (8 slices)'),
    ('KVP', ('80', '140'), '80 (8 slices), 140 (8 slices)'),
    (
      'ImageType',
      (['ORIGINAL', 'PRIMARY', 'AXIAL', 'A'], ['ORIGINAL', 'PRIMARY', 'AXIAL', 'B']),
      'ORIGINAL/PRIMARY/AXIAL/A (8 slices)',
    ),
  ),
)
def test_what_distinguishes_phases_is_listed_and_chooses(
  tmp_path, keyword, values, listed
):
  _phases(tmp_path, *(_constant(keyword, value) for value in values))
  text = _refusal(tmp_path)
  assert listed in text and '--phase' in text
  second = values[1] if isinstance(values[1], (str, int)) else None
  for phase in (2, '2', *([f'{keyword}={second}'] if second else [])):
    volume = readers.read_ct(tmp_path, phase=phase)
    np.testing.assert_array_equal(volume.hu, odd_series.chest_hu(seed=1))
    assert '8 of 16 images' in volume.warnings[0] and keyword in volume.warnings[0]
  np.testing.assert_array_equal(
    readers.read_ct(tmp_path, phase=1).hu, odd_series.chest_hu(seed=0)
  )


@pytest.mark.parametrize('step_s', (0.3, -0.3))
def test_times_that_differ_in_every_slice_are_separated_at_the_gap(tmp_path, step_s):
  _phases(
    tmp_path,
    *(
      lambda index, start=start: {'ContentTime': f'{start + step_s * index:.1f}'}
      for start in (101510, 101540)
    ),
  )
  assert 'ContentTime' in _refusal(tmp_path)
  volume = readers.read_ct(tmp_path, phase=2)
  np.testing.assert_array_equal(volume.hu, odd_series.chest_hu(seed=1))


def test_times_that_pass_a_full_hour(tmp_path):
  start = datetime.datetime(2020, 3, 15, 9, 59, 55)

  def clock(wait_s):
    return lambda index: {
      'AcquisitionTime': (start + datetime.timedelta(seconds=wait_s + index)).strftime(
        '%H%M%S'
      )
    }

  # Read as plain numbers, the step from 095959 to 100000 is the widest gap.
  _phases(tmp_path, clock(0), clock(35))
  volume = readers.read_ct(tmp_path, phase=2)
  np.testing.assert_array_equal(volume.hu, odd_series.chest_hu(seed=1))


def test_volumes_of_a_dynamic_scan(tmp_path):
  _phases(
    tmp_path,
    *(_constant('AcquisitionTime', f'1015{10 + second}') for second in range(12)),
  )
  text = _refusal(tmp_path)
  assert 'and 4 more' in text
  volume = readers.read_ct(tmp_path, phase=12)
  np.testing.assert_array_equal(volume.hu, odd_series.chest_hu(seed=11))


def test_phases_that_nothing_distinguishes(tmp_path):
  _phases(tmp_path, lambda index: {}, lambda index: {})
  assert 'nothing in the headers distinguishes them' in _refusal(tmp_path)
  assert 'nothing in its headers' in _refusal(tmp_path, phase=1)


@pytest.mark.parametrize(
  'phase, message',
  (
    (3, r'there are 2: acquisitions 1 (8 slices), 2 (8 slices)'),
    ('AcquisitionNumber=7', 'acquisitions 1 (8 slices), 2 (8 slices)'),
    ('TriggerTime=7', 'no TriggerTime; or acquisitions 1 (8 slices)'),
  ),
)
def test_a_phase_that_is_not_there_is_refused_with_those_that_are(
  tmp_path, phase, message
):
  _phases(tmp_path, *(_constant('AcquisitionNumber', number) for number in (1, 2)))
  assert message in _refusal(tmp_path, phase=phase)


@pytest.mark.parametrize('phase', ('0', '-1', 'x', '=1', 'KVP=', 'PatientID=1', ''))
def test_a_phase_that_is_none_is_wrong_use(tmp_path, phase):
  with pytest.raises(errors.UsageError, match='KEYWORD=VALUE'):
    readers.read_ct(tmp_path, phase=phase)


def _seam(folder, count=31):
  """Two acquisitions one after the other that share the slice between them."""
  slices = odd_series.series(odd_series.chest_hu((count, 36, 40)))
  for index, ds in enumerate(slices):
    ds.AcquisitionNumber = 1 if index <= count // 2 else 2
  shared = odd_series.series(odd_series.chest_hu((count, 36, 40), 7))[count // 2]
  shared.AcquisitionNumber = 2
  shared.SOPInstanceUID += '.2'
  odd_series.save(slices + [shared], folder)
  return shared


@pytest.mark.parametrize('number', (1, 2))
def test_a_slice_that_two_acquisitions_share(tmp_path, number):
  _seam(tmp_path)
  text = _refusal(tmp_path)
  assert '1 of 31 slice positions' in text and 'they share these positions only' in text
  assert 'acquisitions 1 (16 slices), 2 (16 slices)' in text
  volume = readers.read_ct(tmp_path, phase=f'AcquisitionNumber={number}')
  assert volume.shape[0] == 31
  expected = odd_series.chest_hu((31, 36, 40), 0 if number == 1 else 7)[15]
  np.testing.assert_array_equal(volume.hu[15], expected)
  np.testing.assert_array_equal(
    np.delete(volume.hu, 15, 0), np.delete(odd_series.chest_hu((31, 36, 40)), 15, 0)
  )
  assert 'at 1 position(s) that acquisitions share' in volume.warnings[0]


@pytest.mark.parametrize('place', (0, 3, 7))
@pytest.mark.parametrize('lost_with_it', ((), ('AcquisitionNumber',)))
def test_a_slice_without_its_place_is_not_lost_from_its_phase(
  tmp_path, place, lost_with_it
):
  """At an end of the stack no gap would show it."""
  _phases(tmp_path, *(_constant('AcquisitionNumber', number) for number in (1, 2)))
  path = sorted(tmp_path.iterdir())[place]
  ds = pydicom.dcmread(path)
  for keyword in ('ImagePositionPatient', *lost_with_it):
    delattr(ds, keyword)
  ds.save_as(path)
  for phase in ('1', 'AcquisitionNumber=1'):
    assert 'Image Position (Patient)' in _refusal(tmp_path, phase=phase)
  if lost_with_it:  # It may be of either.
    assert 'Image Position (Patient)' in _refusal(tmp_path, phase='2')
  else:
    np.testing.assert_array_equal(
      readers.read_ct(tmp_path, phase='2').hu, odd_series.chest_hu(seed=1)
    )


def test_a_slice_without_its_place_is_not_lost_from_two_acquisitions(tmp_path):
  _seam(tmp_path)
  path = sorted(tmp_path.iterdir())[0]
  ds = pydicom.dcmread(path)
  del ds.ImagePositionPatient
  ds.save_as(path)
  for phase in ('1', '2'):
    assert 'Image Position (Patient)' in _refusal(tmp_path, phase=phase)


def test_reconstructions_between_each_other_are_chosen(tmp_path):
  slices = odd_series.series()
  for index, ds in enumerate(slices):
    ds.ConvolutionKernel = ('B30f', 'B70f')[index % 2]
  odd_series.save(slices, tmp_path)
  assert '--phase ConvolutionKernel=B30f' in _refusal(tmp_path)
  volume = readers.read_ct(tmp_path, phase='convolutionkernel=b70f')
  np.testing.assert_array_equal(volume.hu, odd_series.chest_hu()[1::2])


def test_frames_of_an_enhanced_file(tmp_path):
  first = odd_series.series(odd_series.chest_hu(seed=0))
  second = odd_series.series(odd_series.chest_hu(seed=1))
  ds = odd_series.enhanced(first + second)
  for number, frame in enumerate(ds.PerFrameFunctionalGroupsSequence):
    content = odd_series.dataset.Dataset()
    content.TemporalPositionIndex = 1 + number // 8
    frame.FrameContentSequence = odd_series.sequence.Sequence([content])
  odd_series.save_one(ds, tmp_path / 'x.dcm')
  assert 'TemporalPositionIndex 1 (8 slices), 2 (8 slices)' in _refusal(tmp_path)
  volume = readers.read_ct(tmp_path, phase='TemporalPositionIndex=2')
  np.testing.assert_array_equal(volume.hu, odd_series.chest_hu(seed=1))


def test_inspect_takes_a_phase(tmp_path, capsys):
  _phases(tmp_path, *(_constant('TriggerTime', value) for value in ('1', '2')))
  assert cli.main(['inspect', str(tmp_path), '--phase', '2']) == 0
  assert 'TriggerTime=2' in capsys.readouterr().out
  assert cli.main(['inspect', str(tmp_path), '--phase', 'nonsense']) == 2


def test_stacks_of_a_multi_frame_image_are_told_apart(tmp_path):
  other = np.roll(odd_series.chest_hu(), 3, axis=1)
  ds = odd_series.enhanced(odd_series.series() + odd_series.series(other))
  for index, frame in enumerate(ds.PerFrameFunctionalGroupsSequence):
    content = pydicom.Dataset()
    content.StackID = str(1 + index // 8)
    frame.FrameContentSequence = [content]
  odd_series.save([ds], tmp_path)
  with pytest.raises(errors.CTReadError, match=r'StackID 1 \(8 slices\), 2 \(8 slic'):
    readers.read_ct(tmp_path)
  np.testing.assert_array_equal(readers.read_ct(tmp_path, phase='StackID=2').hu, other)
