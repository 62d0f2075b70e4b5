"""DIMSE against a PACS that misbehaves: refuses, warns, aborts, is silent."""

import ssl
import threading
import time

import dimse_faults
import pynetdicom
import pytest
import trustme

from covid_tf import clinic
from covid_tf import errors
from covid_tf.clinic import addresses
from covid_tf.clinic import dimse
from covid_tf.clinic import fetching
from covid_tf.clinic import pacs
from covid_tf.clinic import sending
from covid_tf.clinic import verifying

_LIMITS = pacs.Limits(connect_s=3, answer_s=5, total_s=30, attempts=2)


@pytest.fixture(name='study', scope='module')
def _study(tmp_path_factory):
  return dimse_faults.write_study(tmp_path_factory.mktemp('study'))


@pytest.fixture(name='instances', scope='module')
def _instances(study):
  return sending.read_instances(study)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
  monkeypatch.setattr(pacs, '_FIRST_PAUSE_S', 0.01)


def _archive(fake, **options):
  return clinic.connect(fake.address, **{'limits': _LIMITS, **options})


def test_echo_store_find_get(instances, tmp_path):
  with dimse_faults.FakePacs().running() as fake:
    archive = _archive(fake)
    assert 0 < archive.echo() < 5
    answers = []
    sent = sending.send(instances, archive, answers.append)
    assert sent.is_complete and tuple(answers) == sent.answers
    assert len(fake.kept) == len(instances) == 8
    fetched = fetching.fetch(archive, dimse_faults.STUDY_UID, tmp_path / 'out')
    assert fetched.instance_count == 8
    assert verifying.verify(archive, instances).is_kept


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
    sent = sending.send(instances[:2], _archive(fake))
  assert {answer.outcome.name for answer in sent.answers} == {outcome}
  assert all(words in str(answer) for answer in sent.answers)
  assert f'0x{status:04X}' in str(sent.answers[0])
  assert fake.stored == 2


def test_an_abort_in_the_middle_is_gone_on_from(instances):
  fake = dimse_faults.FakePacs()
  fake.abort_after = 3
  with fake.running():
    sent = sending.send(instances, _archive(fake))
  assert sent.is_complete and len(fake.kept) == 8
  assert fake.stored <= 9  # Only what had no answer was sent again.


@pytest.mark.parametrize(
  'options, words',
  [
    ({'require_called_aet': True, 'ae_title': 'OTHER'}, 'another AE title'),
    ({'require_calling_aet': ['FRIEND']}, 'does not know our AE title'),
  ],
)
def test_a_rejection_for_good_is_said_once(instances, options, words):
  fake = dimse_faults.FakePacs()
  with fake.running(**options):
    with pytest.raises(errors.PACSError, match=words) as caught:
      _archive(fake).echo()
  assert 'attempts' not in str(caught.value)


def test_a_rejection_for_now_is_tried_again(instances):
  fake = dimse_faults.FakePacs()
  with fake.running(maximum_associations=1):
    other = pynetdicom.AE('OTHER')
    other.add_requested_context(dimse.VERIFICATION)
    held = other.associate('127.0.0.1', fake.port)
    with pytest.raises(errors.PACSError, match='too many associations.*2 attempts'):
      _archive(fake).echo()
    threading.Timer(0.3, held.release).start()
    patient = pacs.Limits(connect_s=3, answer_s=5, total_s=30, attempts=9)
    assert _archive(fake, limits=patient).echo() > 0


def test_nobody_there_and_no_answer():
  fake = dimse_faults.FakePacs()
  with pytest.raises(errors.PACSError, match='refused.*2 attempts'):
    _archive(fake).echo()
  with pytest.raises(errors.PACSError, match='cannot be reached'):
    clinic.connect('PACS@name.invalid:104', limits=_LIMITS).echo()


def test_a_pacs_that_is_silent_or_slow_ends_by_the_limits(instances, monkeypatch):
  fake = dimse_faults.FakePacs()
  limits = pacs.Limits(connect_s=2, answer_s=0.5, total_s=3, attempts=1)
  monkeypatch.setattr(dimse, '_SLOWEST_BYTES_PER_S', 1e9)
  monkeypatch.setattr(fake, '_store', lambda event: time.sleep(2) or 0x0000)
  with fake.running():
    start = time.monotonic()
    with pytest.raises(errors.PACSError, match='no answer to C-STORE within 0.5 s'):
      sending.send(instances[:1], _archive(fake, limits=limits))
    assert time.monotonic() - start < 3


def test_what_a_pacs_does_not_offer_is_said(instances, tmp_path):
  fake = dimse_faults.FakePacs()
  fake.services = {'store'}
  own = addresses.OwnNode('ME', dimse_faults.free_port())
  with fake.running():
    archive = _archive(fake)
    for ask in (archive.echo, lambda: archive.find('1.2.3')):
      with pytest.raises(errors.PACSError, match='does not offer'):
        ask()
    assert archive.commit(instances) is None
    assert _archive(fake, own=own).commit(instances) is None
  fake.services = {'echo'}
  fake.port = dimse_faults.free_port()
  with fake.running():
    sent = sending.send(instances, _archive(fake))
  assert {answer.outcome for answer in sent.answers} == {pacs.Outcome.FAILED}


def test_c_move_where_that_is_all_there_is(instances, tmp_path):
  fake = dimse_faults.FakePacs()
  fake.services = {'store', 'find', 'move'}
  own = addresses.OwnNode('ME', dimse_faults.free_port())
  fake.destinations = {'ME': own.port}
  with fake.running():
    sending.send(instances, _archive(fake))
    with pytest.raises(errors.UsageError, match='--own-port'):
      fetching.fetch(_archive(fake), dimse_faults.STUDY_UID, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
    fetched = fetching.fetch(
      _archive(fake, own=own), dimse_faults.STUDY_UID, tmp_path / 'out'
    )
    assert fetched.instance_count == 8
    fake.destinations = {}
    with pytest.raises(errors.PACSError, match='AE title as a destination'):
      fetching.fetch(_archive(fake, own=own), dimse_faults.STUDY_UID, tmp_path / 'b')


@pytest.mark.parametrize(
  'keyword, value, words',
  [
    ('StudyInstanceUID', '1.2.3', 'another study'),
    ('SeriesInstanceUID', '1.2.3', 'not asked for'),
    ('SOPInstanceUID', '1.2.3', 'not asked for'),
    ('SOPInstanceUID', '../../etc/x', 'illegal UID'),
  ],
)
def test_what_was_not_asked_for_is_refused(instances, tmp_path, keyword, value, words):
  fake = dimse_faults.FakePacs()
  fake.change = lambda dataset: setattr(dataset, keyword, value)
  with fake.running():
    sending.send(instances, _archive(fake))
    with pytest.raises(errors.PACSError, match=words):
      fetching.fetch(_archive(fake), dimse_faults.STUDY_UID, tmp_path / 'out')
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  'keyword, value', [('SOPInstanceUID', '../x'), ('StudyInstanceUID', '1.2.3')]
)
def test_a_list_with_wrong_uids_is_refused(instances, keyword, value):
  fake = dimse_faults.FakePacs()
  fake.find_change = lambda answer: setattr(answer, keyword, value)
  with fake.running():
    sending.send(instances, _archive(fake))
    with pytest.raises(errors.PACSError, match='C-FIND answered'):
      _archive(fake).find(dimse_faults.STUDY_UID)


def test_compressed_slices_go_uncompressed_to_who_takes_no_other(tmp_path):
  study = dimse_faults.write_study(tmp_path / 'rle', '1.2.840.10008.1.2.5')
  fake = dimse_faults.FakePacs()
  fake.syntaxes = [*pynetdicom.DEFAULT_TRANSFER_SYNTAXES]
  instances = sending.read_instances(study)
  with fake.running():
    sent = sending.send(instances, _archive(fake))
    assert sent.is_complete
    assert set(fake.kept) == {each.sop_instance_uid for each in instances}
    assert verifying.verify(_archive(fake), instances).is_kept


def test_settings_that_do_not_fit(tmp_path):
  token = tmp_path / 'token'
  token.write_text('x')
  token.chmod(0o600)
  for security, words in (
    (addresses.Security(token_file=str(token)), 'belong to a URL'),
    (addresses.Security(ca_file=str(token)), '--tls is required'),
  ):
    with pytest.raises(errors.UsageError, match=words):
      clinic.connect('PACS@host:104', security=security)
  with pytest.raises(errors.UsageError, match='--own-port'):
    clinic.connect('PACS@host:104', use_move=True)


def test_encrypted_and_by_whom(tmp_path):
  authority, stranger = trustme.CA(), trustme.CA()
  server, client = authority.issue_cert('localhost'), authority.issue_cert('me')
  context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
  server.configure_cert(context)
  authority.configure_trust(context)
  context.verify_mode = ssl.CERT_REQUIRED
  for name, each in (('ca', authority), ('stranger', stranger)):
    each.cert_pem.write_to_path(str(tmp_path / f'{name}.pem'))
  client.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / 'me.pem'))
  entity = pynetdicom.AE('FAKE')
  entity.add_supported_context(dimse.VERIFICATION)
  running = entity.start_server(('127.0.0.1', 0), block=False, ssl_context=context)
  address = f'FAKE@localhost:{running.server_address[1]}'
  try:

    def ask(**files):
      security = addresses.Security(
        tls=True, **{name: str(tmp_path / file) for name, file in files.items()}
      )
      return clinic.connect(address, security=security, limits=_LIMITS).echo()

    assert ask(ca_file='ca.pem', certificate_file='me.pem') > 0
    with pytest.raises(errors.PACSError, match='no encrypted connection'):
      ask(ca_file='stranger.pem', certificate_file='me.pem')
    with pytest.raises(errors.PACSError):  # Not in the clear either.
      clinic.connect(address, limits=_LIMITS).echo()
  finally:
    running.shutdown()
