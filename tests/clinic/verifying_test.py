"""What a PACS may change and what it must not, attribute by attribute."""

import copy

import odd_series
import pydicom
import pytest

from covid_tf.clinic import verifying


def _pair(tmp_path, change):
  sent = odd_series.series()[0]
  kept = copy.deepcopy(sent)
  change(kept)
  odd_series.save_one(sent, tmp_path / 'sent.dcm')
  odd_series.save_one(kept, tmp_path / 'kept.dcm')
  return verifying.compare(tmp_path / 'sent.dcm', tmp_path / 'kept.dcm')


@pytest.mark.parametrize(
  'keyword, value',
  [
    ('PatientName', 'Married^Name'),
    ('PatientID', 'ID-NEW'),
    ('AccessionNumber', '99'),
    ('StudyDescription', 'CHEST'),
  ],
)
def test_who_and_which_order_may_change(tmp_path, keyword, value):
  found = _pair(tmp_path, lambda kept: setattr(kept, keyword, value))
  assert found == verifying.Comparison((), (keyword,))


@pytest.mark.parametrize(
  'keyword, value',
  [
    ('SOPInstanceUID', '1.2.3'),
    ('SeriesInstanceUID', '1.2.3'),
    ('FrameOfReferenceUID', '1.2.3'),
    ('ImagePositionPatient', [1, 2, 3]),
    ('PixelSpacing', [0.5, 0.5]),
    ('RescaleIntercept', '-1000'),
    ('SeriesDescription', 'other'),
  ],
)
def test_what_it_is_and_where_it_lies_may_not(tmp_path, keyword, value):
  found = _pair(tmp_path, lambda kept: setattr(kept, keyword, value))
  assert found.differing == (keyword,) and not found.changed


def test_pixels_are_compared_decoded(tmp_path):
  sent = odd_series.series()[0]
  odd_series.save_one(sent, tmp_path / 'sent.dcm')
  odd_series.save_one(sent, tmp_path / 'rle.dcm', pydicom.uid.RLELossless)
  same = verifying.compare(tmp_path / 'sent.dcm', tmp_path / 'rle.dcm')
  assert same == verifying.Comparison((), ())

  def flip(kept):
    kept.PixelData = bytes([kept.PixelData[0] ^ 1]) + kept.PixelData[1:]

  assert _pair(tmp_path, flip).differing == ('PixelData',)


def test_a_library_says_nothing_of_pixels_that_it_cannot_decode(tmp_path, capfd):
  def damage(kept):
    kept.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
    kept.PixelData = pydicom.encaps.encapsulate([b'no JPEG'])
    kept['PixelData'].is_undefined_length = True

  assert 'PixelData' in _pair(tmp_path, damage).differing
  assert capfd.readouterr().err == ''


def test_empty_is_none_and_private_is_nobodys(tmp_path):
  def change(kept):
    kept.add_new(0x00091001, 'LO', 'private')
    kept.AdmittingDiagnosesDescription = ''

  assert _pair(tmp_path, change) == verifying.Comparison((), ())


def test_items_of_sequences_count(tmp_path):
  def change(kept):
    item = pydicom.Dataset()
    item.ReferencedSOPInstanceUID = '1.2.3'
    kept.ReferencedImageSequence = [item]

  assert _pair(tmp_path, change).differing == ('ReferencedImageSequence',)


def test_what_may_change_is_documented_and_exists():
  assert all(pydicom.datadict.tag_for_keyword(key) for key in verifying.COERCIBLE)
