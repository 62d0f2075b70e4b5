"""Counters of a node: what a scraper reads after each event."""

import re

import pytest

from covid_tf.batch import records
from covid_tf.node import metrics as metrics_lib

parser = pytest.importorskip('prometheus_client.parser', reason='no extra clinic')


def _samples(metrics: metrics_lib.Metrics) -> dict[str, float]:
  """'name{label}' to value, as Prometheus' own parser reads them."""
  families = parser.text_string_to_metric_families(metrics.text().decode())
  return {
    sample.name + ''.join(f'{{{value}}}' for value in sample.labels.values()): (
      sample.value
    )
    for family in families
    for sample in family.samples
  }


def test_all_that_may_happen_reads_zero_before_it_does():
  samples = _samples(metrics_lib.Metrics())
  for outcome in ('accepted', 'refused', 'released', 'aborted', 'lost'):
    assert samples[f'covid_tf_node_associations_total{{{outcome}}}'] == 0
  for outcome in ('new', 'again', 'different', 'refused'):
    assert samples[f'covid_tf_node_instances_total{{{outcome}}}'] == 0
  for status in ('scored', 'refused', 'failed', 'unwritten'):
    assert samples[f'covid_tf_node_studies_total{{{status}}}'] == 0


def test_each_event_is_counted_where_it_belongs():
  metrics = metrics_lib.Metrics()
  metrics.association('accepted')
  metrics.association('aborted')
  metrics.instance('new', 1000)
  metrics.instance('again', 24)
  metrics.study(records.SCORED, 30.0)
  metrics.study(records.REFUSED, 1.0)
  metrics.sent(3)
  metrics.rejected(1)
  metrics.send_failed()
  metrics.studies_waiting(2)
  metrics.studies_incomplete(1)
  metrics.results_unsent(4)
  metrics.results_rejected(5)
  metrics.free_bytes(1 << 30)
  samples = _samples(metrics)
  found = {
    name.removeprefix('covid_tf_node_'): value
    for name, value in samples.items()
    if name.startswith('covid_tf_node_') and '_created' not in name and value
  }
  assert {name: value for name, value in found.items() if '_seconds_' not in name} == {
    f'info{{{metrics_lib.version.__version__}}}': 1,
    'associations_total{accepted}': 1,
    'associations_total{aborted}': 1,
    'instances_total{new}': 1,
    'instances_total{again}': 1,
    'received_bytes_total': 1024,
    'studies_total{scored}': 1,
    'studies_total{refused}': 1,
    'sent_objects_total': 3,
    'rejected_objects_total': 1,
    'send_failures_total': 1,
    'studies_waiting': 2,
    'studies_incomplete': 1,
    'results_unsent': 4,
    'results_rejected': 5,
    'free_bytes': 1 << 30,
  }
  # Refused studies say nothing about how long scoring takes.
  assert found['study_seconds_count'] == 1 and found['study_seconds_sum'] == 30


def test_two_nodes_of_one_process_count_for_themselves():
  one, other = metrics_lib.Metrics(), metrics_lib.Metrics()
  one.sent(3)
  assert _samples(other)['covid_tf_node_sent_objects_total'] == 0


def test_names_have_units_and_no_study_is_a_label():
  metrics = metrics_lib.Metrics()
  names = re.findall(r'^# TYPE (\S+)', metrics.text().decode(), re.MULTILINE)
  assert all(name.startswith(('covid_tf_node_', 'process_')) for name in names)
  labels = set(re.findall(r'[{,](\w+)=', metrics.text().decode()))
  assert labels <= {'outcome', 'status', 'version', 'le'}


def test_an_outcome_that_nobody_defined_is_no_new_label():
  metrics = metrics_lib.Metrics()
  with pytest.raises(KeyError):
    metrics.association('1.2.840.1')
  with pytest.raises(KeyError):
    metrics.study('Doe^Jane', 1.0)
