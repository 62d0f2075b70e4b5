"""C-STORE against a PACS that warns, refuses, aborts, is silent, or takes no RLE."""

from concurrent import futures
import contextlib
import threading

import dimse_faults
import pydicom
from pydicom import encaps
import pynetdicom
import pytest

from covid_tf import errors
from covid_tf.clinic import pacs
from covid_tf.clinic import sending
from covid_tf.clinic import storing
from covid_tf.clinic import verifying


@pytest.fixture(name='instances', scope='module')
def _instances(tmp_path_factory):
  return dimse_faults.read_study(tmp_path_factory.mktemp('study'))


@pytest.mark.parametrize(
  'status, outcome, words',
  [
    (0xB000, 'WARNING', 'changed attributes'),
    (0xB006, 'WARNING', 'discarded'),
    (0xB007, 'WARNING', 'does not fit'),
    (0x0111, 'WARNING', 'already'),
    (0xA700, 'FAILED', 'out of resources'),
    (0xA7F1, 'FAILED', 'out of resources'),
    (0xA900, 'FAILED', 'does not fit'),
    (0xC123, 'FAILED', 'cannot understand'),
    (0x0122, 'FAILED', 'SOP class'),
    (0x0124, 'FAILED', 'not authorized'),
    (0x1234, 'FAILED', 'does not define'),
  ],
)
def test_every_answer_is_told_and_no_refusal_repeated(
  instances, status, outcome, words
):
  fake = dimse_faults.FakePacs()
  fake.store_status = status
  with fake.running():
    sent = sending.send(instances[:2], fake.archive())
  assert {answer.outcome.name for answer in sent.answers} == {outcome}
  assert all(words in str(answer) for answer in sent.answers)
  assert f'0x{status:04X}' in str(sent.answers[0])
  assert fake.stored == 2


def test_an_abort_in_the_middle_is_gone_on_from(instances):
  fake = dimse_faults.FakePacs()
  fake.abort_after = 3
  with fake.running():
    sent = sending.send(instances, fake.archive())
  assert sent.is_complete and len(fake.kept) == 8
  assert fake.stored <= 9  # Only what had no answer was sent again.


def test_a_pacs_that_is_silent_or_slow_ends_by_the_limits(instances, monkeypatch):
  fake = dimse_faults.FakePacs()
  # Long enough for an association on a busy machine.
  limits = pacs.Limits(connect_s=60, answer_s=3, total_s=300, attempts=1)
  monkeypatch.setattr(storing, '_SLOWEST_BYTES_PER_S', 1e9)
  has_ended = threading.Event()
  monkeypatch.setattr(fake, '_store', lambda event: has_ended.wait(60) and 0x0000)
  with fake.running():
    with pytest.raises(errors.PACSError, match='no answer to C-STORE within 3 s'):
      sending.send(instances[:1], fake.archive(limits=limits))
    has_ended.set()


def test_compressed_slices_go_uncompressed_to_who_takes_no_other(tmp_path):
  study = dimse_faults.write_study(tmp_path / 'rle', '1.2.840.10008.1.2.5')
  fake = dimse_faults.FakePacs()
  fake.syntaxes = [*pynetdicom.DEFAULT_TRANSFER_SYNTAXES]
  instances = sending.read_instances(study)
  with fake.running():
    sent = sending.send(instances, fake.archive())
    assert sent.is_complete
    assert set(fake.kept) == {each.sop_instance_uid for each in instances}
    assert verifying.verify(fake.archive(), instances).is_kept


def test_damaged_pixels_that_would_have_to_be_decoded_are_told(tmp_path, capfd):
  study = dimse_faults.write_study(tmp_path / 'rle', '1.2.840.10008.1.2.5')
  damaged = sorted(study.iterdir())[2]
  dataset = pydicom.dcmread(damaged)
  dataset.PixelData = encaps.encapsulate([b'no RLE'])
  dataset.save_as(damaged)
  fake = dimse_faults.FakePacs()
  fake.syntaxes = ['1.2.840.10008.1.2.1']
  with fake.running():
    sent = sending.send(sending.read_instances(study), fake.archive())
  (failed,) = sent.of(pacs.Outcome.FAILED)
  assert failed.instance.path == damaged and 'cannot be decoded' in failed.reason
  assert len(fake.kept) == 7 and capfd.readouterr().err == ''


def test_files_go_as_they_are_while_anybody_sends():
  config = pynetdicom._config
  before = config.STORE_SEND_CHUNKED_DATASET
  first, second = (storing._sending_from_files(pynetdicom) for _ in range(2))
  first.__enter__()
  second.__enter__()
  first.__exit__(None, None, None)
  assert config.STORE_SEND_CHUNKED_DATASET
  second.__exit__(None, None, None)
  assert config.STORE_SEND_CHUNKED_DATASET == before


def test_several_senders_at_a_time_lose_nothing(tmp_path):
  study = dimse_faults.write_study(tmp_path / 'rle', '1.2.840.10008.1.2.5')
  instances = sending.read_instances(study)
  fakes = [dimse_faults.FakePacs() for _ in range(3)]
  with contextlib.ExitStack() as stack, futures.ThreadPoolExecutor(3) as pool:
    for fake in fakes:
      stack.enter_context(fake.running())
    sent = list(pool.map(lambda fake: sending.send(instances, fake.archive()), fakes))
  assert all(each.is_complete for each in sent)
  for fake in fakes:
    assert {each.file_meta.TransferSyntaxUID for each in fake.kept.values()} == {
      '1.2.840.10008.1.2.5'
    }
