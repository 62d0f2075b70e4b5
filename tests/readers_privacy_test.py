"""Who the patient is stays in the reader; a site's key makes a lasting pseudonym."""

import hashlib
import hmac
import io
import json
import logging
import warnings

import odd_series
import pytest

from covid_tf import cli
from covid_tf import errors
from covid_tf import readers

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
      tmp_path / 'study', patient_key_file=_key_file(tmp_path, _KEY + b'\n'))
  expected = hmac.new(_KEY, b'WARD\0ID-4711', hashlib.sha256).hexdigest()
  assert volume.patient_key == expected


def test_without_a_key_or_an_id_there_is_no_patient_key(tmp_path):
  slices = odd_series.series()
  odd_series.save(slices, tmp_path / 'study')
  assert readers.read_ct(tmp_path / 'study').patient_key is None
  for ds in slices:
    ds.PatientID = ''
  odd_series.save(slices, tmp_path / 'anonymous')
  volume = readers.read_ct(
      tmp_path / 'anonymous', patient_key_file=_key_file(tmp_path))
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
  path.write_bytes(data[:data.index(b'Secret') + 90])


def _personal_values_in_wrong_places(folder):
  slices = odd_series.series()
  for ds in slices:
    ds.add_new(0x00280030, 'LO', ['Secret^Person', 'ID-4711'])
  odd_series.save(slices, folder)


@pytest.mark.parametrize('make', (
    lambda folder: odd_series.save(odd_series.series(), folder), _two_patients,
    _damaged, _personal_values_in_wrong_places),
    ids=('good', 'two patients', 'damaged', 'wrong places'))
@pytest.mark.parametrize('arguments', ((), ('--json',)))
def test_no_personal_value_is_printed_or_logged(
    tmp_path, capfd, make, arguments, caplog):
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
  fields = {name: str(getattr(volume, name)) for name in (
      'study_uid', 'series_uid', 'warnings', 'acquisition_date', 'patient_key')}
  buffer = io.StringIO()
  json.dump(fields, buffer)
  for value in odd_series.PATIENT:
    assert value not in buffer.getvalue() + repr(readers.list_series(tmp_path))
