"""What has come is what its sender says, or is refused in words."""

import functools
import pathlib
import struct
import tempfile
import tracemalloc
import warnings
import zlib

import hypothesis
from hypothesis import strategies
import pydicom
from pydicom import filewriter
from pydicom import uid
import pytest
import small_instances as instances

from covid_tf.node import arrival

_SYNTAXES = (
  uid.ExplicitVRLittleEndian,
  uid.ImplicitVRLittleEndian,
  uid.DeflatedExplicitVRLittleEndian,
  uid.ExplicitVRBigEndian,
  uid.RLELossless,
)


def written(folder: pathlib.Path, **options) -> pathlib.Path:
  with warnings.catch_warnings(action='ignore'):  # Of UIDs that a test spoils.
    return instances.save(instances.instance(1, **options), folder / 'x.part')


def refusal(path: pathlib.Path) -> arrival.RefusedError:
  with pytest.raises(arrival.RefusedError) as caught:
    arrival.identify(path)
  assert len(str(caught.value)) <= 64  # VR LO, Error Comment.
  assert 'Doe' not in str(caught.value)
  return caught.value


@pytest.mark.parametrize('syntax', _SYNTAXES)
def test_an_instance_is_known_in_every_syntax(tmp_path, syntax):
  found = arrival.identify(written(tmp_path, syntax=syntax))
  assert found == arrival.Identity(
    instances.STUDY_UID,
    instances.SERIES_UID,
    f'{instances.SERIES_UID}.1',
    uid.CTImageStorage,
  )


def _set(keyword, value):
  def change(dataset):
    dataset[keyword] = pydicom.DataElement(
      keyword, 'UI', value, validation_mode=pydicom.config.IGNORE
    )

  return change


@pytest.mark.parametrize(
  'illegal',
  ('../../etc/passwd', '1.2/3', '1.2.3.' + '4' * 59, '1..2', '1.2.', 'x', '1.2\\1.3'),
)
@pytest.mark.parametrize(
  'keyword', ('StudyInstanceUID', 'SeriesInstanceUID', 'SOPInstanceUID')
)
def test_an_illegal_uid(tmp_path, keyword, illegal):
  error = refusal(written(tmp_path, change=_set(keyword, illegal)))
  assert 'is illegal' in str(error) and error.identity is None


@pytest.mark.parametrize('legal', ('0.1', '1.02.3', '1.2.3.' + '4' * 58))
def test_a_uid_that_only_looks_odd(tmp_path, legal):
  path = written(tmp_path, change=_set('StudyInstanceUID', legal))
  assert arrival.identify(path).study_uid == legal


@pytest.mark.parametrize(
  'keyword', ('StudyInstanceUID', 'SeriesInstanceUID', 'SOPInstanceUID')
)
def test_a_missing_uid(tmp_path, keyword):
  dataset = instances.instance(1)
  delattr(dataset, keyword)
  assert 'it has no' in str(refusal(instances.save(dataset, tmp_path / 'x')))


def _said_to_be(path: pathlib.Path, **said: str) -> pathlib.Path:
  """Puts the data set of a file behind other file meta information."""
  data = path.read_bytes()
  data_set = data[144 + struct.unpack_from('<L', data, 140)[0] :]
  meta = instances.instance(1).file_meta
  meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
  for keyword, value in said.items():
    setattr(meta, keyword, value)
  with open(path, 'wb') as file:
    file.write(bytes(128) + b'DICM')
    filewriter.write_file_meta_info(file, meta)
    file.write(data_set)
  return path


def test_another_instance_than_the_command_said(tmp_path):
  path = _said_to_be(written(tmp_path), MediaStorageSOPInstanceUID='1.2.3')
  error = refusal(path)
  assert error.status == arrival.DOES_NOT_MATCH
  assert 'SOP Instance UID is not that of the command' in str(error)
  assert error.identity.study_uid == instances.STUDY_UID


def test_another_class_than_the_command_said(tmp_path):
  path = _said_to_be(written(tmp_path), MediaStorageSOPClassUID=uid.MRImageStorage)
  assert 'SOP Class UID is not that of the command' in str(refusal(path))


@pytest.mark.parametrize(
  ('syntax', 'said'),
  (
    (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian),
    (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian),
    (uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian),
    (uid.ExplicitVRLittleEndian, uid.JPEG2000Lossless),
    (uid.ExplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian),
    (uid.RLELossless, uid.ExplicitVRLittleEndian),
  ),
)
def test_another_syntax_than_its_context_says(tmp_path, syntax, said):
  error = refusal(_said_to_be(written(tmp_path, syntax=syntax), TransferSyntaxUID=said))
  assert error.status == arrival.CANNOT_UNDERSTAND


def test_a_syntax_that_nobody_knows(tmp_path):
  error = refusal(_said_to_be(written(tmp_path), TransferSyntaxUID='1.2.3.4'))
  assert 'transfer syntax is not known' in str(error)


def test_an_object_without_pixels(tmp_path):
  def report(dataset):
    del dataset.PixelData
    dataset.SOPClassUID, dataset.Modality = uid.EnhancedSRStorage, 'SR'

  path = written(tmp_path, change=report)
  assert arrival.identify(path).sop_class_uid == uid.EnhancedSRStorage
  error = refusal(
    written(tmp_path, change=lambda dataset: delattr(dataset, 'PixelData'))
  )
  assert 'before its pixels' in str(error)
  assert error.identity.sop_instance_uid == f'{instances.SERIES_UID}.1'


def test_lengths_that_lie_cost_no_memory(tmp_path):
  path = written(tmp_path)
  data = bytearray(path.read_bytes())
  place = data.index(b'\x20\0\x0d\0UI')  # Study Instance UID, as UN of 4 GB.
  data[place + 4 : place + 12] = b'UN\0\0\xf0\xff\xff\xff'
  path.write_bytes(data)
  with open(path, 'r+b') as file:
    file.truncate(1 << 28)
  tracemalloc.start()
  try:
    refusal(path)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
  finally:
    tracemalloc.stop()


def test_a_deflated_bomb(tmp_path, monkeypatch):
  monkeypatch.setattr(arrival, '_MOST_INFLATED_BYTES', 1 << 24)
  monkeypatch.setattr(arrival, '_MOST_HEADER_BYTES', 1 << 20)
  path = written(tmp_path, syntax=uid.DeflatedExplicitVRLittleEndian)
  data = path.read_bytes()
  start = 144 + struct.unpack_from('<L', data, 140)[0]
  deflater = zlib.compressobj(9, wbits=-15)
  bomb = deflater.compress(bytes(1 << 25)) + deflater.flush()
  path.write_bytes(data[:start] + bomb)
  assert 'too large' in str(refusal(path))
  path.write_bytes(data[:start] + bomb[:9000])
  assert 'break off' in str(refusal(path))


@pytest.mark.parametrize('syntax', _SYNTAXES)
def test_files_that_break_off_anywhere(tmp_path, syntax):
  path = written(tmp_path, syntax=syntax)
  whole = path.read_bytes()
  known = 0
  for end in range(1, len(whole) - 10, 7):
    path.write_bytes(whole[:end])
    refusal(path)
    if begun := arrival.identify_begun(path):
      known += 1
      assert begun.sop_instance_uid == f'{instances.SERIES_UID}.1'
  assert bool(known) == (syntax != uid.DeflatedExplicitVRLittleEndian)
  path.write_bytes(b'')
  assert arrival.identify_begun(path) is None


@functools.cache
def _whole(syntax: str) -> bytes:
  with tempfile.TemporaryDirectory() as name:
    return written(pathlib.Path(name), syntax=syntax).read_bytes()


@hypothesis.given(data=strategies.data(), syntax=strategies.sampled_from(_SYNTAXES))
@hypothesis.settings(max_examples=200, deadline=None)
def test_whatever_bytes_come_it_answers(data, syntax):
  with tempfile.TemporaryDirectory() as name:
    content = bytearray(_whole(syntax))
    path = pathlib.Path(name) / 'x.part'
    for _ in range(data.draw(strategies.integers(1, 4))):
      place = data.draw(strategies.integers(128, len(content) - 1))
      content[place] = data.draw(strategies.integers(0, 255))
    path.write_bytes(content)
    try:
      arrival.identify(path)
    except arrival.RefusedError as error:
      assert len(str(error)) <= 64


def test_a_seal_says_what_follows(tmp_path):
  path = written(tmp_path)
  whole = path.read_bytes()
  assert not arrival.is_as_sealed(path)
  arrival.seal(path)
  assert arrival.is_as_sealed(path)
  sealed = path.read_bytes()
  assert sealed[128:] == whole[128:] and len(sealed) == len(whole)
  assert arrival.identify(path).sop_instance_uid == f'{instances.SERIES_UID}.1'
  assert pydicom.dcmread(path).InstanceNumber == 1
  plain = tmp_path / 'plain'
  plain.write_bytes(whole)
  assert arrival.has_same_content(plain, path)
  for damaged in (sealed[:-1], sealed + b'x', sealed[:-1] + b'x', whole[:50], b''):
    path.write_bytes(damaged)
    assert not arrival.is_as_sealed(path)


def test_file_meta_as_pydicom_reads_it(tmp_path):
  path = tmp_path / 'x'
  path.write_bytes(arrival.file_meta(uid.CTImageStorage, '1.2.3', uid.RLELossless))
  found = pydicom.dcmread(path).file_meta
  assert found.MediaStorageSOPClassUID == uid.CTImageStorage
  assert found.MediaStorageSOPInstanceUID == '1.2.3'
  assert found.TransferSyntaxUID == uid.RLELossless
  assert found.FileMetaInformationVersion == b'\0\1'
  assert found.FileMetaInformationGroupLength == path.stat().st_size - 144
