"""DICOMweb against a PACS that misbehaves, and what is never sent or followed."""

import email.utils
import time

import dimse_faults
import pytest
import web_faults

from covid_tf import clinic
from covid_tf import errors
from covid_tf.clinic import addresses
from covid_tf.clinic import dicomweb
from covid_tf.clinic import fetching
from covid_tf.clinic import pacs
from covid_tf.clinic import sending
from covid_tf.clinic import verifying

_LIMITS = pacs.Limits(connect_s=3, answer_s=3, total_s=20, attempts=3)
_STUDY = dimse_faults.STUDY_UID


@pytest.fixture(name='instances', scope='module')
def _instances(tmp_path_factory):
  folder = dimse_faults.write_study(tmp_path_factory.mktemp('study'))
  return sending.read_instances(folder)


@pytest.fixture(name='fake')
def _fake(monkeypatch):
  monkeypatch.setattr(pacs, '_FIRST_PAUSE_S', 0.01)
  monkeypatch.setenv('NO_PROXY', '127.0.0.1')
  with web_faults.FakeWeb().running() as fake:
    yield fake


def _archive(fake, **options):
  return clinic.connect(fake.url, **{'limits': _LIMITS, **options})


def _secret(path, text):
  path.write_text(text)
  path.chmod(0o600)
  return str(path)


def test_echo_store_find_retrieve(fake, instances, tmp_path):
  archive = _archive(fake)
  assert archive.echo() > 0
  assert 'limit=1' in fake.requests[0][1]
  sent = sending.send(instances, archive)
  assert {answer.outcome for answer in sent.answers} == {pacs.Outcome.STORED}
  fetched = fetching.fetch(archive, _STUDY, tmp_path / 'out')
  for instance in instances:
    path = fetched.folder / instance.series_uid / f'{instance.sop_instance_uid}.dcm'
    assert path.read_bytes() == instance.path.read_bytes()
  assert verifying.verify(archive, instances).is_kept
  assert all(path.startswith('/dw/studies') for _, path, _ in fake.requests)


@pytest.mark.parametrize(
  'reason, outcome', [(0x0110, 'FAILED'), (0xA700, 'FAILED'), (0x0111, 'WARNING')]
)
def test_reasons_of_a_conflict_are_told(fake, instances, reason, outcome):
  fake.failure = reason
  sent = sending.send(instances, _archive(fake))
  assert {answer.outcome.name for answer in sent.answers} == {outcome}
  assert f'0x{reason:04X}' in str(sent.answers[0])
  assert len(fake.requests) == 1  # A refusal is not repeated.


def test_warnings_and_silence_are_told(fake, instances):
  fake.warning = 0xB000
  sent = sending.send(instances, _archive(fake))
  assert 'changed attributes (0xB000)' in str(sent.answers[0])
  fake.silent = True
  sent = sending.send(instances, _archive(fake))
  assert 'without a word' in str(sent.answers[0]) and sent.is_complete


def test_a_pacs_that_forgets_is_found_out(fake, instances):
  fake.forgets = True
  archive = _archive(fake)
  assert sending.send(instances, archive).is_complete
  found = verifying.verify(archive, instances)
  assert len(found.faults) == 8 and 'does not have it' in found.faults[0]


@pytest.mark.parametrize('trouble', [503, 429, 500, 502, 'drop'])
def test_what_may_pass_is_tried_again(fake, instances, trouble):
  fake.answers = [trouble, trouble]
  assert sending.send(instances, _archive(fake)).is_complete
  assert len(fake.kept) == 8


@pytest.mark.parametrize(
  'status, words',
  [
    (400, 'does not understand'),
    (401, '--token-file'),
    (403, 'may not'),
    (404, 'path of the URL'),
    (415, 'does not take DICOM'),
    (501, '501'),
    (507, 'no space'),
  ],
)
def test_what_is_for_good_is_said_once(fake, instances, status, words):
  fake.answers = [status] * 3
  with pytest.raises(errors.PACSError, match=words):
    sending.send(instances, _archive(fake))
  assert len(fake.requests) == 1


@pytest.mark.parametrize('seconds', ['1', None])
def test_retry_after_is_waited_for(fake, instances, seconds):
  text = seconds or email.utils.formatdate(time.time() + 2, usegmt=True)
  fake.answers = [(503, {'Retry-After': text})]
  start = time.monotonic()
  assert sending.send(instances, _archive(fake)).is_complete
  assert 0.7 < time.monotonic() - start < 5


def test_a_wait_longer_than_the_limit_ends_at_once(fake, instances):
  fake.answers = [(503, {'Retry-After': '3600'})]
  start = time.monotonic()
  with pytest.raises(errors.PACSError, match='3600 s'):
    sending.send(instances, _archive(fake))
  assert time.monotonic() - start < 5


def test_large_requests_are_divided(fake, instances):
  fake.most_bytes = 3 * instances[0].size_bytes
  assert sending.send(instances, _archive(fake)).is_complete
  assert len(fake.kept) == 8
  fake.most_bytes = 100
  sent = sending.send(instances, _archive(fake))
  assert 'larger than it takes' in str(sent.answers[0])
  assert not sent.of(pacs.Outcome.STORED)


def test_a_redirection_is_not_followed(fake, instances):
  fake.answers = [(307, {'Location': 'http://127.0.0.1:1/elsewhere'})]
  with pytest.raises(errors.PACSError, match='redirects'):
    sending.send(instances, _archive(fake))
  assert len(fake.requests) == 1


def test_tokens_and_passwords_go_in_a_header_alone(fake, tmp_path):
  for name, text, header in (
    ('token_file', 'tok-4711', 'Bearer tok-4711'),
    ('password_file', 'me:4711', 'Basic bWU6NDcxMQ=='),
  ):
    security = addresses.Security(**{name: _secret(tmp_path / name, text)})
    _archive(fake, security=security).echo()
    _, path, headers = fake.requests[-1]
    assert headers['Authorization'] == header and '4711' not in path
    fake.answers = [403]
    with pytest.raises(errors.PACSError) as caught:
      _archive(fake, security=security).echo()
    assert '4711' not in str(caught.value)
    with pytest.raises(errors.UsageError, match='https:// is required'):
      clinic.connect('http://pacs.example/dw', security=security)


def test_a_netrc_of_the_user_is_not_asked(fake, tmp_path, monkeypatch):
  netrc = _secret(tmp_path / 'netrc', 'default login me password 4711')
  monkeypatch.setenv('NETRC', netrc)
  _archive(fake).echo()
  assert 'Authorization' not in fake.requests[-1][2]


@pytest.mark.parametrize(
  'damage, words',
  [
    (lambda content: content[:-40], 'damaged or ends'),
    (lambda content: content[: len(content) // 2], 'damaged or ends'),
    (lambda content: b'', 'damaged or ends'),
    (lambda content: content.replace(b'DICM', b'XXXX'), 'no DICOM'),
    (lambda content: content.replace(b'\r\n\r\n', b'\r\n', 1), '1 of 8 instances'),
  ],
)
def test_damaged_messages_leave_nothing(fake, instances, tmp_path, damage, words):
  sending.send(instances, _archive(fake))
  fake.damage = damage
  with pytest.raises(errors.PACSError, match=words):
    fetching.fetch(_archive(fake), _STUDY, tmp_path / 'out')
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('kind', ['text/html', 'multipart/related', 'image/jpeg'])
def test_another_content_is_refused(fake, instances, tmp_path, kind):
  sending.send(instances, _archive(fake))
  fake.content_type = kind
  with pytest.raises(errors.PACSError, match='without DICOM'):
    fetching.fetch(_archive(fake), _STUDY, tmp_path / 'out')


def test_a_single_instance_may_come_without_multipart(fake, instances, tmp_path):
  sending.send(instances[:1], _archive(fake))
  fake.content_type = 'application/dicom'
  fake.damage = lambda content: next(iter(fake.kept.values()))
  assert fetching.fetch(_archive(fake), _STUDY, tmp_path / 'out').instance_count == 1


def test_pages_are_read_to_the_end(fake, instances):
  sending.send(instances, _archive(fake))
  fake.page = 3
  assert len(_archive(fake).find(_STUDY)) == 8


def _match(study, series, instance):
  tags = {'0020000D': study, '0020000E': series, '00080018': instance}
  return {tag: {'vr': 'UI', 'Value': [uid]} for tag, uid in tags.items()}


@pytest.mark.parametrize(
  'listed, words',
  [
    ([_match('1.2.3', '1.2', '1.3')], 'another study'),
    ([_match(_STUDY, '../1.2', '1.3')], 'legal UIDs'),
    ([_match(_STUDY, '1.2', '../../x')], 'legal UIDs'),
    ([{}], 'legal UIDs'),
    (b'<html>', 'no DICOM JSON'),
    (['x'], 'no DICOM JSON'),
  ],
)
def test_lists_that_cannot_be_right_are_refused(fake, listed, words):
  fake.listed = listed
  with pytest.raises(errors.PACSError, match=words):
    _archive(fake).find(_STUDY)


def test_silence_ends_by_the_limit(fake):
  fake.delay_s = 5.0
  limits = pacs.Limits(connect_s=2, answer_s=0.3, total_s=5, attempts=1)
  with pytest.raises(errors.PACSError, match='no answer within 0.3 s'):
    _archive(fake, limits=limits).echo()


def test_nobody_there():
  port = dimse_faults.free_port()
  with pytest.raises(errors.PACSError, match='[Rr]efused'):
    clinic.connect(f'http://127.0.0.1:{port}/dw', limits=pacs.Limits(attempts=1)).echo()


@pytest.mark.parametrize('size', [1, 2, 7, 64, 1000])
def test_parts_are_found_however_a_message_is_cut(size, tmp_path):
  contents = [b'', b'\r\n--x', b'a\r\n--boundar', bytes(range(256)) * 3]
  message = b'preamble\r\n' + b''.join(
    b'--boundary\r\nContent-Type: x\r\n\r\n' + content + b'\r\n' for content in contents
  )
  message += b'--boundary--\r\nepilogue'
  pieces = (message[i : i + size] for i in range(0, len(message), size))
  parts = dicomweb._Multipart(pieces, b'boundary', 'name')
  found = []
  while parts.next_part():
    with open(tmp_path / 'part', 'wb') as file:
      parts.copy_part(file)
    found.append((tmp_path / 'part').read_bytes())
  assert found == contents
