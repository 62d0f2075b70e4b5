"""From one PACS through a node to another: the numbers are those of `score`."""

import contextlib
import dataclasses

import fake_serving
import two_pacs

from covid_tf.datasets import phantom
from covid_tf.datasets.phantom import written


def _phantom(folder, seed, kind):
  case = phantom.draw_case(
    seed, kind, slice_spacing_mm=20.0, slice_thickness_mm=20.0, matrix=128
  )
  return written.write_study(phantom.generate(case), folder)


@contextlib.contextmanager
def _served():
  server = fake_serving.FakeServing()
  server.models['classifier'].bias = 1.05  # About half of the slices are positive.
  try:
    yield server.address
  finally:
    server.stop()


def test_numbers_at_the_other_end_are_those_of_score(tmp_path):
  studies = [
    _phantom(tmp_path / 'diffuse', 7, 'diffuse'),
    _phantom(tmp_path / 'none', 8, 'none'),
  ]
  flags = ('--settle=1', '--processes=1', '--no-reports')
  with two_pacs.started(tmp_path / 'way', *flags, serve=_served) as between:
    uids = [between.give(study) for study in studies]
    for uid in uids:
      between.route(uid)
    between.wait_for(lambda: set(between.reports()) == set(uids), 600)
    # What is sent again is no other study: nothing more arrives.
    before = between.destination.ask('/statistics')['CountInstances']
    between.route(uids[0])
    for study, uid in zip(studies, uids, strict=True):
      ours = two_pacs.numbers_of_node(between, uid, tmp_path / f'back{uid[-4:]}')
      score = two_pacs.numbers_of_score(between, study, tmp_path / f'score{uid[-4:]}')
      assert dataclasses.asdict(ours) == dataclasses.asdict(score)
      assert ours.lung_volume_cm3 > 0 and ours.corona_score_cm3 > 0
    assert between.destination.ask('/statistics')['CountInstances'] == before
    assert before == 3 * len(studies)
