"""`covid-tf inspect`: the facts of a study, or one line that says why not."""

import json

import odd_series
import pytest

from covid_tf import cli


def test_json_holds_geometry_and_statistics(tmp_path, capsys):
  odd_series.save(odd_series.series(), tmp_path)
  assert cli.main(['inspect', str(tmp_path), '--json']) == 0
  facts = json.loads(capsys.readouterr().out)
  hu = odd_series.chest_hu()
  assert facts['shape'] == list(hu.shape)
  assert facts['spacing_mm'] == pytest.approx(odd_series.SPACING_MM)
  assert facts['voxel_volume_mm3'] == pytest.approx(2.5 * 0.75 * 0.75)
  assert (facts['hu_min'], facts['hu_max']) == (hu.min(), hu.max())
  assert facts['hu_mean'] == pytest.approx(hu.mean())
  assert facts['series_uid'] == odd_series.SERIES_UID
  assert facts['study_uid'] == odd_series.STUDY_UID
  assert facts['acquisition']['kernel'] == 'B40f'
  assert facts['acquisition']['slice_distance_mm'] == 2.5
  assert facts['warnings'] == []


def test_a_person_reads_a_table(tmp_path, capsys):
  odd_series.save(odd_series.series(), tmp_path)
  (tmp_path / 'empty').touch()
  assert cli.main(['inspect', str(tmp_path)]) == 0
  text = capsys.readouterr().out
  assert '8 slices of 36 x 40' in text and '2.5 mm between slices' in text
  assert 'scan     kernel B40f, slices of 2.5 mm' in text
  assert 'warning  1 empty file(s) skipped' in text


def test_a_refused_study_is_one_line_and_status_3(tmp_path, capsys):
  slices = odd_series.series()
  odd_series.save(slices[:3] + slices[4:], tmp_path)
  assert cli.main(['inspect', str(tmp_path), '--json']) == 3
  output = capsys.readouterr()
  assert output.out == ''
  assert len(output.err.splitlines()) == 1
  assert '1 slice(s) missing' in output.err


def test_an_ambiguous_folder_lists_its_series(tmp_path, capsys):
  other = odd_series.series(odd_series.chest_hu(seed=2), series_uid='1.2.3')
  odd_series.save(odd_series.series(), tmp_path)
  odd_series.save(other, tmp_path, prefix='b')
  assert cli.main(['inspect', str(tmp_path)]) == 3
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 3
  assert cli.main(['inspect', str(tmp_path), '--series', '1.2.3', '--json']) == 0
  assert json.loads(capsys.readouterr().out)['series_uid'] == '1.2.3'
