"""Who the patient is stays in the reader; a site's key makes a lasting pseudonym."""

import copy
import hashlib
import hmac
import io
import json
import logging
import warnings

import odd_series
import pydicom
from pydicom import dataelem
from pydicom import uid
import pytest

from covid_tf import cli
from covid_tf import errors
from covid_tf import readers
from covid_tf.readers import privacy

_KEY = b'0123456789abcdef-of-the-site'


def _key_file(tmp_path, key=_KEY):
  path = tmp_path / 'site.key'
  path.write_bytes(key)
  return path


def test_the_key_of_a_patient_is_an_hmac_of_id_and_issuer(tmp_path):
  slices = odd_series.series()
  for ds in slices:
    ds.IssuerOfPatientID = 'WARD'
  odd_series.save(slices, tmp_path / 'study')
  volume = readers.read_ct(
    tmp_path / 'study', patient_key_file=_key_file(tmp_path, _KEY + b'\n')
  )
  expected = hmac.new(_KEY, b'WARD\0ID-4711', hashlib.sha256).hexdigest()
  assert volume.patient_key == expected


def test_without_a_key_or_an_id_there_is_no_patient_key(tmp_path):
  slices = odd_series.series()
  odd_series.save(slices, tmp_path / 'study')
  assert readers.read_ct(tmp_path / 'study').patient_key is None
  for ds in slices:
    ds.PatientID = ''
  odd_series.save(slices, tmp_path / 'anonymous')
  volume = readers.read_ct(tmp_path / 'anonymous', patient_key_file=_key_file(tmp_path))
  assert volume.patient_key is None


@pytest.mark.parametrize('key', (b'', b'short', None))
def test_a_bad_key_file_is_wrong_use(tmp_path, key):
  odd_series.save(odd_series.series(), tmp_path / 'study')
  path = tmp_path / 'none' if key is None else _key_file(tmp_path, key)
  with pytest.raises(errors.UsageError):
    readers.read_ct(tmp_path / 'study', patient_key_file=path)


def _two_patients(folder):
  other = odd_series.series(series_uid='1.2.3')
  for ds in other:
    ds.PatientID, ds.PatientName = 'ID-0815', 'Hidden^Human'
  odd_series.save(odd_series.series(), folder)
  odd_series.save(other, folder, prefix='b')


def _damaged(folder):
  odd_series.save(odd_series.series(), folder)
  path = folder / '0004.dcm'
  data = path.read_bytes()
  path.write_bytes(data[: data.index(b'Secret') + 90])


def _personal_values_in_wrong_places(folder):
  slices = odd_series.series()
  for ds in slices:
    ds.add_new(0x00280030, 'LO', ['Secret^Person', 'ID-4711'])
  odd_series.save(slices, folder)


@pytest.mark.parametrize(
  'make',
  (
    lambda folder: odd_series.save(odd_series.series(), folder),
    _two_patients,
    _damaged,
    _personal_values_in_wrong_places,
  ),
  ids=('good', 'two patients', 'damaged', 'wrong places'),
)
@pytest.mark.parametrize('arguments', ((), ('--json',)))
def test_no_personal_value_is_printed_or_logged(
  tmp_path, capfd, make, arguments, caplog
):
  caplog.set_level(logging.DEBUG)
  make(tmp_path)
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    cli.main(['inspect', str(tmp_path), *arguments])
  output = capfd.readouterr()
  text = ' '.join((output.out, output.err, caplog.text, *map(str, caught))).lower()
  for value in (*odd_series.PATIENT, 'Secret', 'Hidden', 'Human', 'ID-0815'):
    assert value.lower() not in text


def test_a_volume_holds_no_personal_value(tmp_path):
  odd_series.save(odd_series.series(), tmp_path)
  volume = readers.read_ct(tmp_path)
  fields = {
    name: str(getattr(volume, name))
    for name in (
      'study_uid',
      'series_uid',
      'warnings',
      'acquisition_date',
      'patient_key',
    )
  }
  buffer = io.StringIO()
  json.dump(fields, buffer)
  for value in odd_series.PATIENT:
    assert value not in buffer.getvalue() + repr(readers.list_series(tmp_path))


_NAME = 'Müller^Jörg'
_LATIN_NAME = _NAME.encode('latin-1')


def _patient(
  slices,
  folder,
  *,
  name=_LATIN_NAME,
  charset=b'ISO_IR 100',
  patient_id=b'ID-4711',
  issuer=b'',
  prefix='',
):
  """Saves slices of a patient whose header is written in these bytes."""
  for index, ds in enumerate(slices):
    ds = copy.deepcopy(ds)
    for tag, vr, value in (
      (0x00080005, 'CS', charset),
      (0x00100010, 'PN', name),
      (0x00100020, 'LO', patient_id),
      (0x00100021, 'LO', issuer),
    ):
      ds.pop(tag, None)
      value += b' ' * (len(value) % 2)
      ds[tag] = dataelem.RawDataElement(
        pydicom.tag.Tag(tag), vr, len(value), value, 0, False, True
      )
    folder.mkdir(exist_ok=True)
    path = folder / f'{prefix}{index}.dcm'
    ds.save_as(path, enforce_file_format=True)


def _as_written(**written):
  return written


_SAME_PATIENT = (
  _as_written(issuer=b'WARD'),
  _as_written(name=_NAME.encode(), charset=b'ISO_IR 192'),
  _as_written(name=_NAME.encode(), charset=b'ISO_IR 100'),
  _as_written(name=_NAME.encode(), charset=b''),
  _as_written(name=_NAME.encode('latin-1'), charset=b''),
  _as_written(name=_NAME.upper().encode('latin-1')),
  _as_written(name=b'Mu\xcc\x88ller^Jo\xcc\x88rg', charset=b'ISO_IR 192'),
  _as_written(name=_NAME.encode('latin-1') + b'^^^'),
  _as_written(name=b' ' + _NAME.encode('latin-1').replace(b'^', b' ')),
  _as_written(name=_NAME.encode() + '=山田^太郎'.encode(), charset=b'ISO_IR 192'),
  _as_written(name=_NAME.encode('gb18030'), charset=b'GB18030'),
  _as_written(name=b'=' + '山田'.encode(), charset=b'ISO_IR 192'),
  _as_written(name=b''),
  _as_written(patient_id=b'id-4711'),
  _as_written(patient_id=b' ID-4711  '),
  _as_written(patient_id=b''),
)


@pytest.mark.parametrize('written', _SAME_PATIENT)
def test_one_patient_written_in_two_ways_is_one(tmp_path, written):
  first, second = odd_series.series()[:4], odd_series.series()[4:]
  _patient(first, tmp_path / 'study')
  _patient(second, tmp_path / 'study', prefix='b', **written)
  assert readers.read_ct(tmp_path / 'study').shape == odd_series.SHAPE
  # The key is the same whichever of the slices is the lowest.
  _patient(second, tmp_path / 'turned', prefix='b')
  _patient(first, tmp_path / 'turned', **written)
  key = _key_file(tmp_path)
  keys = {
    readers.read_ct(tmp_path / name, patient_key_file=key).patient_key
    for name in ('study', 'turned')
  }
  assert len(keys) == 1 and None not in keys


@pytest.mark.parametrize(
  'written',
  (
    _as_written(name=b'Miller^Jorg'),
    _as_written(patient_id=b'ID-4712'),
    _as_written(patient_id=b'ID 4711'),
    _as_written(name='Møller^Jörg'.encode()),
  ),
)
def test_two_patients_are_two(tmp_path, written):
  _patient(odd_series.series()[:4], tmp_path / 'study')
  _patient(odd_series.series()[4:], tmp_path / 'study', prefix='b', **written)
  with pytest.raises(errors.CTReadError, match='more than one patient') as caught:
    readers.read_ct(tmp_path / 'study')
  assert 'ller' not in str(caught.value) and '471' not in str(caught.value)


def test_names_that_are_romanized_alike_are_two(tmp_path):
  slices = odd_series.series()
  for part, name in ((slices[:4], '山田^太郎'), (slices[4:], '山田^太朗')):
    _patient(
      part,
      tmp_path / 'study',
      charset=b'ISO_IR 192',
      name=b'Yamada^Tarou=' + name.encode(),
      prefix=part[0].SOPInstanceUID,
    )
  with pytest.raises(errors.CTReadError, match='more than one patient'):
    readers.read_ct(tmp_path / 'study')


def test_japanese_escape_sequences_are_decoded(tmp_path):
  escaped = b'Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B'
  _patient(
    odd_series.series()[:4],
    tmp_path / 'study',
    name=escaped,
    charset=b'\\ISO 2022 IR 87',
  )
  _patient(
    odd_series.series()[4:],
    tmp_path / 'study',
    charset=b'ISO_IR 192',
    name='Yamada^Tarou=山田^太郎'.encode(),
    prefix='b',
  )
  assert readers.read_ct(tmp_path / 'study').shape == odd_series.SHAPE


def _element(tag, vr, value):
  return pydicom.dataelem.RawDataElement(
    pydicom.tag.Tag(tag), vr, len(value), value, 0, False, True
  )


@pytest.mark.parametrize(
  'declared, written, expected',
  [
    # As PS3.5 annexes I and K write them, and with the escape left out.
    (b'\\ISO 2022 IR 149', 'H^G=\x1b$)C洪^\x1b$)C吉洞', 'H^G=洪^吉洞'),
    (b'\\ISO 2022 IR 149', 'H^G=洪^吉洞', 'H^G=洪^吉洞'),
    (b'\\ISO 2022 IR 58', 'Z^X=\x1b$)A张^\x1b$)A小东=', 'Z^X=张^小东='),
    (b'\\ISO 2022 IR 58', 'Z^X=张^小东', 'Z^X=张^小东'),
  ],
)
def test_names_in_extended_sets_are_decoded(declared, written, expected):
  codec = {b'9': 'euc_kr', b'8': 'gb2312'}[declared[-1:]]
  elements = {
    0x00080005: _element(0x00080005, 'CS', declared),
    0x00100010: _element(0x00100010, 'PN', written.encode(codec)),
  }
  assert privacy.decoded_text(elements, 0x00100010, elements) == expected


def test_in_text_that_is_no_name_its_delimiters_are_letters():
  text = '흉부^CT=홍'
  elements = {
    0x00080005: _element(0x00080005, 'CS', b'\\ISO 2022 IR 149'),
    0x00081030: _element(0x00081030, 'LO', b'\x1b$)C' + text.encode('euc_kr')),
  }
  assert privacy.decoded_text(elements, 0x00081030, elements) == text


@pytest.mark.parametrize('delimiter', ('^', '='))
def test_a_delimiter_ends_the_escape_sequence_of_single_byte_letters(delimiter):
  """PS3.5 6.1.2.5.3: after it the first character set holds again.

  Not by a saved file: pydicom would write another escape sequence behind it.
  """

  def digests(charset, name):
    elements = {
      tag: dataelem.RawDataElement(
        pydicom.tag.Tag(tag), vr, len(value), value, 0, False, True
      )
      for tag, vr, value in (
        (0x00080005, 'CS', charset),
        (0x00100010, 'PN', name),
      )
    }
    return privacy.PatientHasher(b'k' * 16).digests(elements)

  escaped = digests(
    b'ISO 2022 IR 100\\ISO 2022 IR 144',
    b'\x1b-L' + 'Иванов'.encode('iso8859-5') + f'{delimiter}José'.encode('latin-1'),
  )
  assert escaped == digests(b'ISO_IR 192', f'Иванов{delimiter}José'.encode())


def test_two_issuers_are_two_patients(tmp_path):
  _patient(odd_series.series()[:4], tmp_path / 'study', issuer=b'WARD')
  _patient(odd_series.series()[4:], tmp_path / 'study', issuer=b'CLINIC', prefix='b')
  with pytest.raises(errors.CTReadError, match='more than one patient'):
    readers.read_ct(tmp_path / 'study')


def test_an_issuer_counts_where_no_study_uid_holds_images_together(tmp_path):
  slices = odd_series.series()
  for ds in slices:
    del ds.StudyInstanceUID
  _patient(slices[:4], tmp_path / 'study', issuer=b'WARD')
  _patient(slices[4:], tmp_path / 'study', prefix='b')
  with pytest.raises(errors.CTReadError, match='more than one patient'):
    readers.read_ct(tmp_path / 'study')


def test_what_is_not_ct_does_not_count(tmp_path):
  _patient(odd_series.series(), tmp_path / 'study')
  capture = odd_series.series(series_uid='1.2.3')[:1]
  capture[0].SOPClassUID = uid.SecondaryCaptureImageStorage
  _patient(capture, tmp_path / 'study', name=b'X', patient_id=b'Y', prefix='b')
  assert readers.read_ct(tmp_path / 'study').shape == odd_series.SHAPE


def test_a_study_has_one_key_whichever_series_is_read(tmp_path):
  _patient(odd_series.series(), tmp_path / 'study')
  _patient(
    odd_series.series(series_uid='1.2.3'),
    tmp_path / 'study',
    issuer=b'WARD',
    prefix='b',
  )
  expected = hmac.new(_KEY, b'WARD\0ID-4711', hashlib.sha256).hexdigest()
  for series_uid in (odd_series.SERIES_UID, '1.2.3'):
    volume = readers.read_ct(
      tmp_path / 'study', series_uid, patient_key_file=_key_file(tmp_path)
    )
    assert volume.patient_key == expected
