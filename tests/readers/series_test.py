"""Which series is read: the clear one, or the one asked for."""

import copy
import struct

import numpy as np
import odd_series
from pydicom import uid
import pytest

from covid_tf import errors
from covid_tf import readers

OTHER_UID = '1.2.826.0.1.3680043.10.511.3.2'


def _other(hu=None, **changes):
  """A second series of the same study."""
  slices = odd_series.series(
    odd_series.chest_hu(seed=5) if hu is None else hu, series_uid=OTHER_UID
  )
  for ds in slices:
    for keyword, value in changes.items():
      setattr(ds, keyword, value)
  return slices


def _save(folder, *several):
  for number, slices in enumerate(several):
    odd_series.save(slices, folder, prefix=f'{number}-')


def _refusal(folder, series_uid=None) -> str:
  with pytest.raises(errors.CTReadError) as caught:
    readers.read_ct(folder, series_uid)
  return str(caught.value)


def test_two_plausible_series_are_listed(tmp_path):
  _save(tmp_path, odd_series.series(), _other(ConvolutionKernel='B70f'))
  text = _refusal(tmp_path)
  assert '2 series could be meant' in text and '--series' in text
  for part in (
    odd_series.SERIES_UID,
    OTHER_UID,
    '8 CT slices',
    '2.5 x 0.75 x 0.75 mm',
    'kernel B40f',
    'kernel B70f',
  ):
    assert part in text


def test_a_series_is_read_by_its_uid(tmp_path):
  _save(tmp_path, odd_series.series(), _other())
  volume = readers.read_ct(tmp_path, OTHER_UID)
  assert volume.series_uid == OTHER_UID
  np.testing.assert_array_equal(volume.hu, odd_series.chest_hu(seed=5))


def test_an_unknown_uid_is_refused_with_the_list(tmp_path):
  _save(tmp_path, odd_series.series())
  text = _refusal(tmp_path, '1.2.3')
  assert 'no series 1.2.3' in text and odd_series.SERIES_UID in text


def _scout():
  slices = odd_series.series(series_uid=OTHER_UID, orientation=(1, 0, 0, 0, 0, -1))
  for ds in slices:
    ds.ImageType = ['ORIGINAL', 'PRIMARY', 'LOCALIZER']
  return slices[:2]


def _pet():
  return _other(Modality='PT', SOPClassUID=uid.PositronEmissionTomographyImageStorage)


@pytest.mark.parametrize(
  'other',
  (
    _scout(),
    _pet(),
    _other()[:1],
    odd_series.series(series_uid=OTHER_UID, orientation=(1, 0, 0, 0, 0, -1)),
    odd_series.series(series_uid=OTHER_UID, orientation=(0, 1, 0, 0, 0, -1)),
    _other(ImageType=['DERIVED', 'SECONDARY', 'AXIAL', 'MIP']),
    _other(ImagePositionPatient=[0, 0, 0]),
    _other(BitsAllocated=8),
  ),
  ids=('scout', 'PET', 'single', 'coronal', 'sagittal', 'MIP', 'bolus', '8 bit'),
)
def test_one_clear_choice(tmp_path, other):
  _save(tmp_path, odd_series.series(), other)
  volume = readers.read_ct(tmp_path)
  assert volume.series_uid == odd_series.SERIES_UID
  np.testing.assert_array_equal(volume.hu, odd_series.chest_hu())


def test_a_much_shorter_series_is_set_aside_with_a_warning(tmp_path):
  _save(tmp_path, odd_series.series(odd_series.chest_hu((16, 36, 40))), _other()[:2])
  volume = readers.read_ct(tmp_path)
  assert volume.shape[0] == 16
  assert volume.warnings == ('1 much shorter series set aside',)


@pytest.mark.parametrize('keyword', ('StudyInstanceUID', 'PatientID'))
@pytest.mark.parametrize('count', (1, 2, 8))
def test_two_patients_or_studies_are_never_a_clear_choice(tmp_path, keyword, count):
  other = _other(**{keyword: '1.2.3'})[:count]
  _save(tmp_path, odd_series.series(), other)
  text = _refusal(tmp_path)
  assert 'patient' in text or '2 studies' in text
  assert OTHER_UID in text and 'ID-4711' not in text
  assert readers.read_ct(tmp_path, odd_series.SERIES_UID).shape == odd_series.SHAPE


@pytest.mark.parametrize('mark', (True, False))
def test_a_localizer_within_the_series(tmp_path, mark):
  scout = copy.deepcopy(odd_series.series()[0])
  scout.SOPInstanceUID += '.77'
  scout.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
  scout.ImagePositionPatient = [0, -50, 300]
  if mark:
    scout.ImageType = ['ORIGINAL', 'PRIMARY', 'LOCALIZER']
  _save(tmp_path, odd_series.series(), [scout])
  volume = readers.read_ct(tmp_path)
  assert volume.spacing_mm[0] == pytest.approx(2.5)
  assert volume.warnings == ('1 localizer(s) in the series set aside',)


def test_objects_over_a_series_are_no_slices(tmp_path):
  struct = odd_series.series()[0]
  struct.SOPClassUID, struct.Modality = uid.RTStructureSetStorage, 'RTSTRUCT'
  del struct.PixelData, struct.Rows
  seg = odd_series.series()[1]
  seg.SOPClassUID, seg.Modality = uid.SegmentationStorage, 'SEG'
  seg.SOPInstanceUID += '.5'
  _save(tmp_path, odd_series.series(), [struct, seg])
  volume = readers.read_ct(tmp_path)
  np.testing.assert_array_equal(volume.hu, odd_series.chest_hu())


def test_slices_without_series_uid_beside_others(tmp_path):
  slices = odd_series.series()
  del slices[7].SeriesInstanceUID
  _save(tmp_path, slices)
  assert 'carry no Series Instance UID' in _refusal(tmp_path)


def test_a_listing_needs_no_pixel(tmp_path):
  _save(tmp_path, odd_series.series(), _scout())
  for path in tmp_path.iterdir():  # Headers as they are, pixels cut in half.
    path.write_bytes(path.read_bytes()[:-1000])
  listed = {entry.series_uid: entry for entry in readers.list_series(tmp_path)}
  assert listed[OTHER_UID].refusal == 'only localizers'
  assert 'truncated' in listed[odd_series.SERIES_UID].refusal
  assert listed[odd_series.SERIES_UID].slices == 8
  assert listed[odd_series.SERIES_UID].spacing_mm == pytest.approx((2.5, 0.75, 0.75))
  assert listed[odd_series.SERIES_UID].thickness_mm == (2.5,)


def test_illegal_uids_become_legal_ones(tmp_path):
  odd_series.save(odd_series.series(), tmp_path)
  hostile = b"=cmd|'/c x'!../../../etc/ab\x1b"
  uid_bytes = odd_series.SERIES_UID.encode()
  for path in tmp_path.iterdir():
    element = b'\x20\0\x0e\0UI' + struct.pack('<H', len(uid_bytes))
    data = path.read_bytes()
    assert element + uid_bytes in data
    path.write_bytes(
      data.replace(element + uid_bytes, element + hostile.ljust(len(uid_bytes)))
    )
  volume = readers.read_ct(tmp_path)
  assert volume.series_uid.startswith('2.25.')
  assert volume.series_uid.replace('.', '').isdigit()
