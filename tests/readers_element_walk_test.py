"""The walk over headers finds what pydicom finds, in pydicom's own odd files."""

import pathlib

import odd_series
import pydicom
import pytest

from covid_tf.readers import data_sets
from covid_tf.readers import element_walk
from covid_tf.readers import sources


def _files():
  folder = pathlib.Path(pydicom.data.get_testdata_file('CT_small.dcm')).parent
  return sorted(path for path in folder.glob('*.dcm'))


def _value(element):
  """Bytes, or for a sequence that pydicom parsed its number of items."""
  if isinstance(element.value, bytes):
    return element.value.rstrip(b'\0 ')
  return element.value and len(element.value)


@pytest.mark.parametrize('path', _files(), ids=lambda path: path.name)
def test_the_walk_agrees_with_pydicom(path, monkeypatch):
  source = sources.FileSource(path)
  walked = _read(source)

  def unusual(*_):
    raise element_walk.UnusualError

  monkeypatch.setattr(element_walk.Walk, 'to_pixels', unusual)
  parsed = _read(source)
  assert type(walked) is type(parsed)
  if not isinstance(walked, data_sets.DataSet):
    return
  assert walked.pixel_offset == parsed.pixel_offset
  assert walked.pixel_length == parsed.pixel_length
  for tag in walked.elements.keys() | parsed.elements.keys() - {0x00080005}:
    assert _value(walked.elements[tag]) == (_value(parsed.elements[tag]) or b'')


def _read(source):
  try:
    return data_sets.read(source)
  except (data_sets.NotDicomError, data_sets.IncompleteError) as error:
    return error


@pytest.mark.parametrize('implicit, big_endian', (
    (True, False), (False, False), (False, True)))
def test_nested_sequences_are_jumped_over(implicit, big_endian):
  ds = odd_series.series()[0]
  inner = pydicom.Dataset()
  inner.PixelSpacing = [9, 9]
  for depth in range(4):
    outer = pydicom.Dataset()
    outer.ContentSequence = [inner, pydicom.Dataset(), inner]
    outer['ContentSequence'].is_undefined_length = depth % 2 == 0
    outer.is_undefined_length_sequence_item = depth > 1
    inner = outer
  ds.ReferencedStudySequence = [inner]
  ds['ReferencedStudySequence'].is_undefined_length = True
  data = odd_series.bare_bytes(ds, implicit, big_endian)
  walk = element_walk.Walk(data, implicit, not big_endian)
  found, place = walk.to_pixels(0, frozenset((0x00280030, 0x00280010)))
  assert set(found) == {0x00280030, 0x00280010}
  assert found[0x00280030].value.strip() == b'0.75\\0.75'
  assert data[place[1]:] == ds.PixelData
