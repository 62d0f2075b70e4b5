"""A study is whole when nothing speaks against it, and each reason is said."""

import dataclasses
import pathlib

import hypothesis
from hypothesis import strategies
import pytest

from covid_tf import errors
from covid_tf.node import completeness
from covid_tf.node import spool

_WAITING, _INCOMPLETE, _WHOLE = completeness.State
_RULES = completeness.Rules(settle_s=60, incomplete_after_s=600)
_ASKING = dataclasses.replace(_RULES, asks_source=True)
_SERIES = ('1.1', '1.2', '1.3')


def _kept(**changes) -> spool.Kept:
  return dataclasses.replace(
    spool.Kept('1', pathlib.Path('1'), {'1.1': 38}, 7, 1000.0, 0, {}, 0), **changes
  )


def _state(kept, silent_s, rules=_RULES, listed=None, **options):
  return completeness.decide(kept, 1000 + silent_s, rules, listed, **options).state


def test_a_settle_study_is_whole():
  assert _state(_kept(), 59.9) is _WAITING
  assert _state(_kept(), 60) is _WHOLE
  assert completeness.decide(_kept(), 1012, _RULES).reason == (
    'its last news came 12 s ago, 60 s are required without'
  )


def test_an_open_association_keeps_it_waiting_and_later_incomplete():
  stalled = _kept(open_associations=1)
  assert _state(stalled, 300) is _WAITING
  assert _state(stalled, 600) is _INCOMPLETE
  assert _state(stalled, 600, is_accepted=True) is _INCOMPLETE


def test_an_interrupted_series_is_incomplete_until_somebody_says_otherwise():
  cut = _kept(interrupted={'1.1': 'SENDER aborted'}, counts={'1.1': 20})
  assert _state(cut, 30) is _WAITING  # The sender may be about to repeat it.
  decision = completeness.decide(cut, 1060, _RULES)
  assert decision.state is _INCOMPLETE
  assert decision.reason == 'series 1.1: SENDER aborted'
  lacking = completeness.Comparison({'1.1': 38}, {'1.1': 18})
  assert _state(cut, 60, _ASKING, lacking) is _INCOMPLETE
  whole = completeness.Comparison({'1.1': 20}, {'1.1': 0})
  assert _state(cut, 60, _ASKING, whole) is _WHOLE
  assert _state(cut, 60, is_accepted=True) is _WHOLE


def test_what_the_source_lists_and_is_not_here_is_waited_for():
  listed = completeness.compare({'1.1': {'a', 'b'}}, {'1.1': {'a', 'b', 'c'}})
  decision = completeness.decide(_kept(), 1060, _ASKING, listed)
  assert decision == completeness.Decision(
    _WAITING,
    'series 1.1: 1 of 3 instances that the PACS that sends lists have not come',
  )
  assert _state(_kept(), 600, _ASKING, listed) is _INCOMPLETE
  assert _state(_kept(), 60, _ASKING, listed, is_accepted=True) is _WHOLE


def test_a_source_that_does_not_answer_or_knows_nothing_lets_nothing_through():
  assert _state(_kept(), 599, _ASKING) is _WAITING
  assert _state(_kept(), 600, _ASKING) is _INCOMPLETE
  nothing = completeness.compare({'1.1': {'a'}}, {})
  assert _state(_kept(), 599, _ASKING, nothing) is _WAITING


def test_what_only_one_side_has_is_no_difference():
  # More series at the PACS: it sent what it was asked to. An instance of ours that it
  # does not list any more: deleted there meanwhile.
  found = completeness.compare({'1.1': {'a', 'x'}}, {'1.1': {'a'}, '1.2': {'d'}})
  assert found.confirms('1.1')
  assert not found.confirms('1.2')


_uids = strategies.sets(strategies.sampled_from('abcdef'))
_by_series = strategies.dictionaries(strategies.sampled_from(_SERIES), _uids)


@hypothesis.given(
  silent_s=strategies.floats(-10, 2000),
  has=_by_series.map(lambda found: {uid: kept for uid, kept in found.items() if kept}),
  at_source=_by_series,
  answered=strategies.booleans(),
  open_associations=strategies.integers(0, 2),
  interrupted=strategies.sets(strategies.sampled_from(_SERIES)),
  rules=strategies.sampled_from((_RULES, _ASKING)),
  is_accepted=strategies.booleans(),
)
def test_a_whole_study_has_nothing_against_it(
  silent_s, has, at_source, answered, open_associations, interrupted, rules, is_accepted
):
  kept = _kept(
    counts={uid: len(found) for uid, found in has.items()},
    open_associations=open_associations,
    interrupted=dict.fromkeys(interrupted & set(has), 'why'),
  )
  listed = completeness.compare(has, at_source) if answered else None
  decision = completeness.decide(
    kept, 1000 + silent_s, rules, listed, is_accepted=is_accepted
  )
  is_quiet = silent_s >= 60 and not open_associations
  equal = {
    uid: answered and bool(at_source.get(uid)) and at_source[uid] <= found
    for uid, found in has.items()
  }
  nothing_missing = answered and all(equal.values()) if rules.asks_source else True
  all_sent = all(equal[uid] for uid in kept.interrupted)
  if is_accepted:
    nothing_missing = all_sent = True
  assert (decision.state is _WHOLE) == (is_quiet and nothing_missing and all_sent)
  assert bool(decision.reason) == (decision.state is not _WHOLE)
  if decision.state is _INCOMPLETE:
    assert is_quiet or silent_s >= 600
  if silent_s >= 600:
    assert decision.state is not _WAITING  # Somebody is told.


@pytest.mark.parametrize(
  'rules, flag',
  [
    ({'settle_s': 0}, '--settle'),
    ({'settle_s': float('nan')}, '--settle'),
    ({'incomplete_after_s': 1e9}, '--incomplete-after'),
    ({'settle_s': 60, 'incomplete_after_s': 30}, 'as long as --settle'),
  ],
)
def test_rules_that_mean_nothing_are_refused(rules, flag):
  with pytest.raises(errors.UsageError, match=flag):
    completeness.Rules(**rules)
