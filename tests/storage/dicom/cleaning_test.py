"""Header values that the standard does not allow, and how identity was removed."""

import dicom_series
import dicom_tools
import pydicom
from pydicom import config
from pydicom import datadict
import pytest
import synthetic_case

from covid_tf import readers
from covid_tf.storage.dicom import cleaning
from covid_tf.storage.dicom import objects
from covid_tf.storage.dicom import source as source_lib

_SHAPE, _SPACING_MM = (9, 50, 76), (30.0, 5.0, 5.0)


def _volume(reverse=()):
  affine = synthetic_case.axial_affine(_SPACING_MM, _SHAPE, reverse)
  return synthetic_case.make_volume(affine, _SHAPE)


def _read(folder, change=None, reverse=()):
  return source_lib.read_source(
    dicom_series.write(folder / 'study', _volume(reverse), change)
  )


def test_values_that_are_no_legal_ones_are_left_empty_or_cut_and_said(tmp_path):
  def spoil(_, dataset):
    for keyword, value in (
      ('PatientName', 'N' * 80 + '^Ann'),
      ('StudyDate', '20209999'),
      ('StudyTime', '9911'),
      ('PatientSex', 'X'),
      ('AccessionNumber', 'A' * 30),
      ('PatientAge', 'old'),
    ):
      tag = datadict.tag_for_keyword(keyword)
      vr = datadict.dictionary_VR(tag)
      dataset.add(pydicom.DataElement(tag, vr, value, validation_mode=config.IGNORE))

  source = _read(tmp_path, spoil)
  header = source.headers[0]
  assert header.PatientName == 'N' * 64
  assert (header.StudyDate, header.StudyTime, header.PatientSex) == ('', '', '')
  assert header.AccessionNumber == 'A' * 16
  assert 'PatientAge' not in header
  assert len(source.notes) == 6
  assert not any('NNN' in note or '9999' in note for note in source.notes)


def test_numbers_that_are_none_are_left_out(tmp_path):
  def spoil(_, dataset):
    for keyword, value in (
      ('SliceThickness', b'-3'),
      ('PatientSize', b'1,80'),
      ('SeriesNumber', b'12.0'),
    ):
      tag = datadict.tag_for_keyword(keyword)
      # As the bytes stand in a file: pydicom would not take these as a number.
      dataset._dict[pydicom.tag.Tag(tag)] = pydicom.dataelem.RawDataElement(
        pydicom.tag.Tag(tag),
        datadict.dictionary_VR(tag),
        len(value),
        value,
        0,
        False,
        True,
      )

  header = _read(tmp_path, spoil).headers[2]
  assert float(header.SliceThickness) == _SPACING_MM[0]
  assert 'PatientSize' not in header and 'SeriesNumber' not in header


@pytest.mark.parametrize(
  'keyword, written, expected',
  [
    ('PatientWeight', '72.5', '72.5'),
    ('PatientWeight', '+7.25E1', '+7.25E1'),
    ('PatientWeight', '1_0', ''),
    ('PatientWeight', 'nan', ''),
    ('PatientWeight', 'infinity', ''),
    ('PatientWeight', '٧٢', ''),
    ('InstanceNumber', '2147483647', '2147483647'),
    ('InstanceNumber', '-12', '-12'),
    ('InstanceNumber', '2147483648', ''),
    ('InstanceNumber', '١٢', ''),
    ('PatientAge', '045Y', '045Y'),
    ('PatientAge', '٠٤٥Y', ''),
    ('StudyTime', '2359', '2359'),
    ('StudyTime', '235960', '235959'),
    ('StudyTime', '235960.5', '235959.5'),
    ('StudyTime', '٢٣', ''),
    ('StudyDate', '٢٠٢٠٠١٠٢', ''),
  ],
)
def test_numbers_are_those_of_the_standard_and_not_of_python(
  keyword, written, expected
):
  tag = cleaning.tag_of(keyword)
  notes: dict[str, None] = {}
  raw = written.encode()
  element = pydicom.dataelem.RawDataElement(
    pydicom.tag.Tag(tag), datadict.dictionary_VR(tag), len(raw), raw, 0, False, True
  )
  assert cleaning.value({tag: element}, keyword, notes) == expected
  assert bool(notes) == (expected != written)


@pytest.mark.parametrize(
  'name, expected',
  [('A^B^C^D^E^F^G', 'A^B^C^D^E'), ('A=B=C=D', 'A=B=C'), ('A^B\\C^D', 'A^B')],
)
def test_names_keep_their_legal_parts(tmp_path, name, expected):
  def rename(_, dataset):
    tag = datadict.tag_for_keyword('PatientName')
    dataset.add(pydicom.DataElement(tag, 'LT', name))

  assert _read(tmp_path, rename).headers[0].PatientName == expected


def _code(value, meaning='Basic Application Confidentiality Profile'):
  item = pydicom.Dataset()
  item.CodeValue, item.CodingSchemeDesignator = value, 'DCM'
  item.CodeMeaning = meaning
  return item


def _anonymized(dataset, methods=(), codes=(), removed='YES'):
  dataset.PatientIdentityRemoved = removed
  if methods:
    dataset.DeidentificationMethod = list(methods)
  if codes:
    dataset.DeidentificationMethodCodeSequence = list(codes)


@pytest.mark.parametrize(
  'methods, codes',
  [
    (['Per DICOM PS 3.15'], []),
    (['first', 'second'], []),
    ([], [_code('113100'), _code('113101', 'Clean Pixel Data Option')]),
    (['both'], [_code('113100')]),
  ],
)
def test_that_identity_was_removed_is_kept_and_how(tmp_path, methods, codes):
  source = _read(tmp_path, lambda _, dataset: _anonymized(dataset, methods, codes))
  for header in source.headers[:: _SHAPE[0] - 1]:
    assert header.PatientIdentityRemoved == 'YES'
    if methods:
      method = header.DeidentificationMethod
      assert ([method] if isinstance(method, str) else list(method)) == methods
    found = header.get('DeidentificationMethodCodeSequence', ())
    assert [item.CodeValue for item in found] == [item.CodeValue for item in codes]
  volume = readers.read_ct(tmp_path / 'study')
  result = synthetic_case.make_result(volume)
  for path in objects.write_objects(tmp_path, result, source):
    assert pydicom.dcmread(path).PatientIdentityRemoved == 'YES'
    assert dicom_tools.errors_of(path) == []


def test_identity_that_was_removed_in_no_known_way_is_said_to_be_nothing(tmp_path):
  broken = _code('113100')
  del broken.CodeMeaning
  for name, codes in (('none', ()), ('broken', (broken,))):
    source = _read(
      tmp_path / name, lambda _, ds, codes=codes: _anonymized(ds, (), codes)
    )
    assert 'PatientIdentityRemoved' not in source.headers[0]
    assert len(source.notes) == 1 and 'identity' in source.notes[0]
  source = _read(tmp_path / 'no', lambda _, ds: _anonymized(ds, removed='NO'))
  assert source.headers[0].PatientIdentityRemoved == 'NO' and source.notes == ()
