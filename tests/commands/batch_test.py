import dataclasses
import os
import signal

import batch_archive
import fake_models
import odd_series
import pydicom
import pytest
import synthetic_case

from covid_tf import cli
from covid_tf import predictors
from covid_tf import results
from covid_tf.batch import engines
from covid_tf.storage import result_json


@pytest.fixture(name='source', scope='module')
def _source(tmp_path_factory):
  return batch_archive.write_archive(tmp_path_factory.mktemp('in'), 2)


@pytest.fixture(name='asked', autouse=True)
def _asked(monkeypatch):
  """Studies run in this process, by fake models; addresses that were asked."""
  asked = []

  def map_studies(function, studies, *, stop, **options):
    del options
    for study in studies:
      if stop.is_set():
        return
      yield study, function(study)

  def connect(address, **options):
    del options
    asked.append(address)
    return fake_models.FakeModels()

  monkeypatch.setattr(engines, 'map_studies', map_studies)
  monkeypatch.setattr(predictors, 'connect', connect)
  monkeypatch.setattr(
    predictors, 'load_models', lambda directory=None: fake_models.FakeModels()
  )
  return asked


def _batch(source, output, *flags):
  return cli.main(
    ['batch', str(source), '--output', str(output), '--no-reports', *flags]
  )


def test_all_scored_by_the_servers_that_were_named(source, asked, tmp_path, capsys):
  output = tmp_path / 'out'
  assert _batch(source, output, '--server', 'one:1,two:2') == 0
  assert asked[:2] == ['one:1', 'two:2']
  printed = capsys.readouterr()
  assert 'This run: 2 scored' in printed.out and 'manifest.csv' in printed.out
  assert '2 studies in' in printed.err
  stored = result_json.read_result(output / 'studies' / batch_archive.study_uid(2))
  assert stored.corona_score_cm3 > 0 and stored.warnings == ()
  assert _batch(source, output, '--server', 'one:1') == 0
  assert 'Earlier runs: 2 scored' in capsys.readouterr().out


def test_the_demo_models_say_so(source, tmp_path):
  assert _batch(source, tmp_path / 'out') == 0
  stored = result_json.read_result(
    tmp_path / 'out' / 'studies' / batch_archive.study_uid(1)
  )
  assert 'demo models' in stored.warnings[0]


def test_results_inside_the_archive_are_no_studies(tmp_path):
  source = tmp_path / 'in'
  batch_archive.write_study(source / 'case', 1)
  for _ in range(2):  # The second time there are NIfTI files to be found.
    assert _batch(source, source / 'out', '--server', 'a:1') == 0
  assert os.listdir(source / 'out' / 'studies') == [batch_archive.study_uid(1)]


def test_the_exit_status_says_some_or_none(tmp_path, capsys):
  source = tmp_path / 'in'
  odd = odd_series.series(odd_series.chest_hu())
  odd_series.save(odd[:3] + odd[5:], source / 'bad')
  assert _batch(source, tmp_path / 'none', '--server', 'a:1') == 3
  batch_archive.write_study(source / 'good', 7)
  assert _batch(source, tmp_path / 'some', '--server', 'a:1') == 1
  assert 'Without a score, by reason' in capsys.readouterr().out


def test_a_case_threshold_answers_each_case(source, tmp_path):
  output = tmp_path / 'out'
  assert _batch(source, output, '--models', 'm', '--case-threshold', '1') == 0
  stored = result_json.read_result(output / 'studies' / batch_archive.study_uid(1))
  assert stored.case_detected is True


def test_servers_with_different_models_are_refused(
  source, tmp_path, monkeypatch, capsys
):
  def connect(address, **options):
    del options
    models = fake_models.FakeModels()
    if address == 'two:2':
      other = results.ModelIdentity('lungs', 9, 'c' * 64)
      monkeypatch.setattr(
        models, 'identities', lambda: (other, fake_models.IDENTITIES[1])
      )
    return models

  monkeypatch.setattr(predictors, 'connect', connect)
  assert _batch(source, tmp_path / 'out', '--server', 'one:1,two:2') == 2
  assert 'serve different ones' in capsys.readouterr().err


def test_wrong_use_is_said_in_one_line(source, tmp_path, capsys):
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'file').write_text('')
  (tmp_path / 'links').mkdir()
  (tmp_path / 'links' / 'a').symlink_to(source)
  for arguments, message, status in (
    ((tmp_path / 'empty', tmp_path / 'out'), 'at least one CT study', 2),
    ((tmp_path / 'gone', tmp_path / 'out'), 'found nothing', 2),
    ((source, tmp_path / 'out', '--processes', '0'), '--processes', 2),
    ((source, tmp_path / 'out', '--server', 'a:1,'), 'an empty one', 2),
    ((source, tmp_path / 'out', '--server', 'a:1, a:1'), 'one twice', 2),
    ((tmp_path / 'links', tmp_path / 'out'), '1 symbolic link', 2),
    ((source, tmp_path / 'file' / 'out'), 'cannot be written', 5),
  ):
    assert _batch(*arguments) == status
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_an_interrupt_ends_the_run_in_order(source, tmp_path, monkeypatch, capsys):
  @dataclasses.dataclass
  class Interrupted(fake_models.FakeModels):
    """Ctrl-C comes while the first study is with the models."""

    def __post_init__(self):
      super().__init__()

    def grad_cam(self, hu):
      os.kill(os.getpid(), signal.SIGINT)
      return super().grad_cam(hu)

  monkeypatch.setattr(predictors, 'load_models', lambda directory=None: Interrupted())
  before = signal.getsignal(signal.SIGINT)
  output = tmp_path / 'out'
  assert _batch(source, output, '--models', 'interrupted') == 130
  assert 'the same command goes on' in capsys.readouterr().err
  assert os.listdir(output / 'studies') == [batch_archive.study_uid(1)]
  assert signal.getsignal(signal.SIGINT) is before
  monkeypatch.setattr(
    predictors, 'load_models', lambda directory=None: fake_models.FakeModels()
  )
  assert _batch(source, output, '--models', 'm') == 0


def test_a_rule_chooses_in_every_study_and_belongs_to_the_configuration(
  source, tmp_path, capsys
):
  second = batch_archive.write_archive(tmp_path / 'second', 1)
  for path in list(second.rglob('*.dcm')):
    data_set = pydicom.dcmread(path)
    data_set.SeriesInstanceUID += '.9'
    data_set.SOPInstanceUID += '.9'
    data_set.SeriesNumber = 9
    data_set.save_as(path.with_name(f'b{path.name}'))
  output = tmp_path / 'out'
  assert _batch(second, output) == 3
  for rule in ('number=9', 'number=highest'):
    redo = ('--redo',) if rule == 'number=highest' else ()
    if redo:
      assert _batch(second, output, '--select', rule) == 2
      assert 'select' in capsys.readouterr().err
    assert _batch(second, output, '--select', rule, *redo) == 0
    stored = result_json.read_result(output / 'studies' / batch_archive.study_uid(1))
    assert stored.series_uid.endswith('.9')
    assert any(f"chosen by the rule '{rule}'" in text for text in stored.warnings)
  assert _batch(source, tmp_path / 'other', '--select', 'nonsense') == 2
  assert 'selection rule' in capsys.readouterr().err


def test_objects_are_beside_each_result_where_asked_for(tmp_path, capsys):
  source, output = tmp_path / 'in', tmp_path / 'out'
  batch_archive.write_study(source / 'dicom', 1)
  _halve(batch_archive.write_study(source / 'halved', 2))
  affine = synthetic_case.axial_affine((20.0, 5.0, 5.0), (14, 50, 76))
  volume = synthetic_case.make_volume(affine, (14, 50, 76))
  synthetic_case.write_nifti(source / 'Doe_Jane.nii.gz', volume)
  assert _batch(source, output, '--dicom', '--server', 'a:1') == 0
  assert 'This run: 3 scored' in capsys.readouterr().out
  found = {path.parent.name: path for path in output.glob('studies/*/result.json')}
  nifti = found.pop(next(name for name in found if name.startswith('nifti')))
  assert not (nifti.parent / 'dicom').exists()
  warnings = result_json.read_result(nifti.parent).warnings
  assert 'no DICOM objects: the image has no DICOM headers' in warnings
  for key, path in found.items():
    names = sorted(os.listdir(path.parent / 'dicom'))
    assert names == ['parametric_map.dcm', 'report.dcm', 'segmentation.dcm']
    segments = pydicom.dcmread(path.parent / 'dicom' / 'segmentation.dcm')
    assert segments.StudyInstanceUID == key and segments.NumberOfFrames == 28
    assert 'no DICOM' not in ''.join(result_json.read_result(path.parent).warnings)
  # It belongs to the configuration, and is no part of one that does without.
  assert _batch(source, output, '--server', 'a:1') == 2
  assert 'dicom differ' in capsys.readouterr().err
  assert _batch(source, tmp_path / 'plain', '--server', 'a:1') == 0
  assert not list(tmp_path.glob('plain/studies/*/dicom'))
  (configuration,) = (tmp_path / 'plain' / 'configurations').iterdir()
  assert 'dicom' not in configuration.read_text()


def _halve(folder):
  """Moves every second file of a study to another folder."""
  other = folder.parent / f'{folder.name}-rest'
  other.mkdir()
  for path in sorted(folder.iterdir())[::2]:
    path.rename(other / path.name)


def test_what_has_a_score_and_can_have_no_objects_says_why(tmp_path):
  source, output = tmp_path / 'in', tmp_path / 'out'
  for path in batch_archive.write_study(source / 'case', 1).iterdir():
    data_set = pydicom.dcmread(path)
    del data_set.FrameOfReferenceUID
    data_set.save_as(path)
  assert _batch(source, output, '--dicom', '--server', 'a:1') == 0
  folder = output / 'studies' / batch_archive.study_uid(1)
  *_, last = result_json.read_result(folder).warnings
  assert last.startswith('no DICOM objects: one Frame of Reference UID is required')
  assert 'case' not in last and not (folder / 'dicom').exists()


def test_flags_of_objects_belong_to_dicom(source, tmp_path, capsys):
  assert _batch(source, tmp_path / 'out', '--dicom-map', 'float32') == 2
  assert '--dicom-map belongs to --dicom' in capsys.readouterr().err
  assert _batch(source, tmp_path / 'out', '--dicom', '--dicom-map', 'uint8') == 2
  assert not (tmp_path / 'out').exists()
