"""What is known of each result's objects, through the file and back."""

import os

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies
import node_results
import pytest

from covid_tf.node import sent as sent_lib

_KEY = '1.2.3.1'
_ANSWERS = strategies.lists(
  strategies.builds(
    sent_lib.Answer,
    sop_instance_uid=strategies.from_regex(r'1\.2\.[1-9]{1,4}', fullmatch=True),
    file_name=strategies.sampled_from(node_results.NAMES),
    result=strategies.text(max_size=20),
    state=strategies.sampled_from(sent_lib.State),
    status=strategies.none() | strategies.integers(0, 0xFFFF),
    reason=strategies.text(max_size=40),
    destination=strategies.text(max_size=40),
  )
)


@settings(max_examples=50, deadline=None)
@given(answers=_ANSWERS, ended=strategies.text(max_size=20))
def test_what_is_written_is_read(tmp_path_factory, answers, ended):
  folder = tmp_path_factory.mktemp('node')
  sent = sent_lib.Sent(_KEY, _KEY, ended=ended).having(answers)
  sent_lib.write(folder, sent)
  assert sent_lib.read(folder, node_results.record(_KEY)) == sent
  assert all(each.time.endswith('Z') for each in sent.answers.values())


@pytest.mark.parametrize(
  'content',
  ['', 'null', '[]', '{"format": 2}', '{"format": 1, "key": "1.2.3.1"}', '\xff'],
)
def test_what_cannot_be_understood_is_damaged_and_not_empty(tmp_path, content):
  (tmp_path / 'sent').mkdir()
  (tmp_path / 'sent' / f'{_KEY}.json').write_text(content, 'latin-1')
  found = sent_lib.read(tmp_path, node_results.record(_KEY))
  assert found == sent_lib.Sent(_KEY, _KEY, is_damaged=True)


def test_the_file_of_another_study_is_damaged(tmp_path):
  sent_lib.write(tmp_path, sent_lib.Sent(_KEY, _KEY))
  os.rename(tmp_path / 'sent' / f'{_KEY}.json', tmp_path / 'sent' / '1.9.json')
  assert sent_lib.read(tmp_path, node_results.record('1.9')).is_damaged


def test_rejections_of_earlier_results_are_past():
  record = node_results.record(_KEY)
  answers = [
    sent_lib.Answer(f'1.2.{number}', 'report.dcm', result, state)
    for number, (result, state) in enumerate(
      (
        ('an earlier one', sent_lib.State.REJECTED),
        (sent_lib.identity(record), sent_lib.State.REJECTED),
        (sent_lib.identity(record), sent_lib.State.STORED),
      )
    )
  ]
  sent = sent_lib.Sent(_KEY, _KEY, ended=sent_lib.identity(record)).having(answers)
  rejected = sent.rejected_of(sent_lib.identity(record))
  assert [each.sop_instance_uid for each in rejected] == ['1.2.1']
  again = sent.without(['1.2.1'])
  assert list(again.answers) == ['1.2.0', '1.2.2'] and again.ended == ''


def test_another_result_has_another_identity():
  record = node_results.record(_KEY)
  late = node_results.record(_KEY, fingerprint='one image more')
  assert sent_lib.identity(record) != sent_lib.identity(late)


def test_orphans_are_what_no_result_has_any_more(tmp_path):
  node_results.write_result(tmp_path, _KEY)
  for key in (_KEY, '1.2.3.2'):
    sent_lib.write(tmp_path, sent_lib.Sent(key, key))
  assert list(sent_lib.orphans(tmp_path)) == [tmp_path / 'sent' / '1.2.3.2.json']
