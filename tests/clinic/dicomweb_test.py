"""DICOMweb against a PACS that misbehaves, and what is never sent or followed."""

import dimse_faults
import pytest
import web_faults

from covid_tf import errors
from covid_tf.clinic import fetching
from covid_tf.clinic import pacs
from covid_tf.clinic import sending
from covid_tf.clinic import verifying

_STUDY = dimse_faults.STUDY_UID


@pytest.fixture(name='instances', scope='module')
def _instances(tmp_path_factory):
  return dimse_faults.read_study(tmp_path_factory.mktemp('study'))


@pytest.fixture(name='fake')
def _fake():
  with web_faults.FakeWeb().running() as fake:
    yield fake


def test_echo_store_find_retrieve(fake, instances, tmp_path):
  archive = fake.archive()
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
  sent = sending.send(instances, fake.archive())
  assert {answer.outcome.name for answer in sent.answers} == {outcome}
  assert f'0x{reason:04X}' in str(sent.answers[0])
  assert len(fake.requests) == 1  # A refusal is not repeated.


def test_warnings_and_silence_are_told(fake, instances):
  fake.warning = 0xB000
  sent = sending.send(instances, fake.archive())
  assert 'changed attributes (0xB000)' in str(sent.answers[0])
  fake.silent = True
  sent = sending.send(instances, fake.archive())
  assert 'without a word' in str(sent.answers[0]) and sent.is_complete


@pytest.mark.parametrize('kind', ['text/html; charset=utf-8', 'application/dicom+json'])
def test_a_page_to_sign_in_has_stored_nothing(fake, instances, monkeypatch, kind):
  # As a server sends it that wants a person: with the status of a success.
  page = b'\n<!DOCTYPE html><html><body>Sign in</body></html>'
  monkeypatch.setattr(web_faults.json, 'dumps', lambda found: page.decode())
  monkeypatch.setattr(
    web_faults._Handler,
    '_answer',
    lambda handler, status, content, headers, answer=web_faults._Handler._answer: (
      answer(handler, status, content, {'Content-Type': kind})
    ),
  )
  with pytest.raises(errors.PACSError, match='page for people'):
    sending.send(instances, fake.archive())


def test_a_pacs_that_forgets_is_found_out(fake, instances):
  fake.forgets = True
  archive = fake.archive()
  assert sending.send(instances, archive).is_complete
  found = verifying.verify(archive, instances)
  assert len(found.faults) == 8 and 'does not have it' in found.faults[0]


@pytest.mark.parametrize('trouble', [503, 429, 500, 502, 'drop'])
def test_what_may_pass_is_tried_again(fake, instances, trouble):
  fake.answers = [trouble, trouble]
  assert sending.send(instances, fake.archive()).is_complete
  assert len(fake.kept) == 8


def test_large_requests_are_divided(fake, instances):
  fake.most_bytes = 3 * instances[0].size_bytes
  assert sending.send(instances, fake.archive()).is_complete
  assert len(fake.kept) == 8
  fake.most_bytes = 100
  sent = sending.send(instances, fake.archive())
  assert 'larger than it takes' in str(sent.answers[0])
  assert not sent.of(pacs.Outcome.STORED)


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
  sending.send(instances, fake.archive())
  fake.damage = damage
  with pytest.raises(errors.PACSError, match=words):
    fetching.fetch(fake.archive(), _STUDY, tmp_path / 'out')
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('kind', ['text/html', 'multipart/related', 'image/jpeg'])
def test_another_content_is_refused(fake, instances, tmp_path, kind):
  sending.send(instances, fake.archive())
  fake.content_type = kind
  with pytest.raises(errors.PACSError, match='without DICOM'):
    fetching.fetch(fake.archive(), _STUDY, tmp_path / 'out')


def test_a_single_instance_may_come_without_multipart(fake, instances, tmp_path):
  sending.send(instances[:1], fake.archive())
  fake.content_type = 'application/dicom'
  fake.damage = lambda content: next(iter(fake.kept.values()))
  assert fetching.fetch(fake.archive(), _STUDY, tmp_path / 'out').instance_count == 1


def test_pages_are_read_to_the_end(fake, instances):
  sending.send(instances, fake.archive())
  fake.page = 3
  assert len(fake.archive().find(_STUDY)) == 8


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
    fake.archive().find(_STUDY)
