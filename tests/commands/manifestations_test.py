"""The command over studies of known kinds."""

import contextlib
import io
import json

import browser
import fake_features
import numpy as np
import pytest
import SimpleITK as sitk
import synthetic_case

from covid_tf import cli
from covid_tf.cohort.manifestations import features
from covid_tf.commands import model_flags

KINDS = ('none', 'focal', 'diffuse')
STUDIES = 9


@pytest.fixture(scope='module')
def studies(tmp_path_factory):
  root = tmp_path_factory.mktemp('studies')
  for i in range(STUDIES):
    volume = fake_features.make_study(KINDS[i % 3], i)
    synthetic_case.write_nifti(root / f'case{i}.nii.gz', volume)
  (root / 'broken.nii.gz').write_bytes(b'no image')
  return root


@pytest.fixture
def models(monkeypatch):
  return use_fake_models(monkeypatch)


@pytest.fixture(scope='module')
def fitted(studies, tmp_path_factory):
  """The output of one fit, and what it printed; no test changes it."""
  output = tmp_path_factory.mktemp('fitted')
  kinds = output / 'kinds.csv'
  kinds.write_text(
    'study_uid,kind\n'
    + ''.join(f'case{i}.nii.gz,{KINDS[i % 3]}\n' for i in range(STUDIES))
  )
  printed, complained = io.StringIO(), io.StringIO()
  with (
    pytest.MonkeyPatch.context() as monkeypatch,
    contextlib.redirect_stdout(printed),
    contextlib.redirect_stderr(complained),
  ):
    use_fake_models(monkeypatch)
    assert (
      run(
        studies,
        output,
        '--kinds',
        str(kinds),
        '--clusters',
        '3',
        '--most-clusters',
        '4',
      )
      == 0
    )
  return output, printed.getvalue(), complained.getvalue()


def use_fake_models(monkeypatch):
  made = fake_features.LinearModels()

  @contextlib.contextmanager
  def opened(arguments):
    del arguments
    yield made

  monkeypatch.setattr(model_flags, 'open_models', opened)
  return made


def run(studies, output, *flags):
  return cli.main(
    [
      'manifestations',
      str(studies),
      '--output',
      str(output),
      '--models',
      'exported',
      '--smoothing-mm',
      '0',  # Flags that come later count.
      *flags,
    ]
  )


def content(output):
  return json.loads((output / 'manifestations.json').read_text())


def test_the_page_can_be_read_by_everybody(fitted):
  output, _, _ = fitted
  with browser.chromium(webgl=False) as chromium:
    browser.check_page(chromium, output / 'manifestations.html')


def test_clusters_and_their_comparison(fitted):
  output, printed, complained = fitted
  assert 'broken.nii.gz refused' in complained and 'known kinds ARI' in printed
  found = content(output)
  assert found['weighting'] == 'profile'
  by_name = {row['weighting']: row for row in found['weightings']}
  assert set(by_name) == {
    'paper',
    'features',
    'probability',
    'relevance',
    'profile',
    'focus',
  }
  # One gradient for all slices: the paper's form is the plain features.
  assert by_name['paper']['truth_agreement'] == by_name['features']['truth_agreement']
  assert found['slices']['gradient_spread'] < 1e-3
  assert by_name['focus']['truth_agreement'] > 0.2
  assert by_name['profile']['truth_agreement'] > 0.2
  assert [row['study'] for row in found['refused']] == ['broken.nii.gz']
  assert [cluster['name'] for cluster in found['clusters']] == [
    'normal',
    'focal',
    'diffuse',
  ]
  normal = next(c for c in found['clusters'] if c['name'] == 'normal')
  assert normal['known_kinds']['none'] > 0
  assert sum(normal['known_kinds'].values()) == normal['slices']
  assert all(len(cluster['key_slices']) == 4 for cluster in found['clusters'])


def test_shares_of_each_patient(fitted):
  shares = {
    study['study_uid']: study['shares'] for study in content(fitted[0])['studies']
  }
  assert shares['case0.nii.gz'] is None
  assert shares['case2.nii.gz']['diffuse'] > 0.3
  assert shares['case1.nii.gz']['diffuse'] == 0
  assert sum(shares['case2.nii.gz'].values()) == pytest.approx(1)


def test_page_and_figures(fitted):
  page = (fitted[0] / 'manifestations.html').read_text()
  assert page.count('<svg') == 2 and 'broken.nii.gz' in page
  for name in ('manifestations.svg', 'manifestations.png', 'manifestations_elbow.svg'):
    assert (fitted[0] / 'figures' / name).stat().st_size > 1000


def test_applied_to_the_same_patients_gives_the_same_shares(
  tmp_path, studies, models, fitted
):
  # As if new: into another folder, so nothing of the fit but the model is used.
  assert (
    run(studies, tmp_path, '--apply', str(fitted[0] / 'manifestation_model.npz')) == 0
  )
  assert content(tmp_path)['studies'] == content(fitted[0])['studies']


def test_a_model_of_other_networks_is_refused(
  tmp_path, studies, models, fitted, capsys
):
  model = tmp_path / 'model.npz'
  with np.load(fitted[0] / 'manifestation_model.npz') as stored:
    arrays = dict(stored)
  words = json.loads(str(arrays['words']))
  words['models']['classifier'] = 'c' * 64
  np.savez(model, **arrays | {'words': np.array(json.dumps(words))})
  assert run(studies, tmp_path / 'applied', '--apply', str(model)) == 2
  assert 'classifier cccccccccccc is required' in capsys.readouterr().err
  model.write_bytes(b'nothing')
  assert run(studies, tmp_path / 'applied', '--apply', str(model)) == 2
  assert 'a model fitted by covid-tf manifestations' in capsys.readouterr().err


def test_a_model_of_another_thickness_is_refused(
  tmp_path, studies, models, fitted, capsys
):
  model = fitted[0] / 'manifestation_model.npz'
  assert content(fitted[0])['thresholds']['thickness_mm'] == 5
  applied = ('--apply', str(model), '--every-slice')
  assert run(studies, tmp_path / 'applied', *applied) == 2
  words = 'slabs of 5 mm is required, found every slice; give --thickness-mm 5'
  assert words in capsys.readouterr().err
  assert not (tmp_path / 'applied').exists()
  # One of before slices were averaged says nothing of it.
  with np.load(model) as stored:
    arrays = dict(stored)
  words = json.loads(str(arrays['words']))
  del words['cuts']['thickness_mm']
  older = tmp_path / 'older.npz'
  np.savez(older, **arrays | {'words': np.array(json.dumps(words))})
  assert run(studies, tmp_path / 'applied', '--apply', str(older)) == 2
  assert 'found slabs of 5 mm; give --every-slice' in capsys.readouterr().err
  assert run(studies, tmp_path / 'out', '--apply', str(older), '--every-slice') == 0


def test_a_model_of_another_smoothing_is_refused(
  tmp_path, studies, models, fitted, capsys
):
  assert content(fitted[0])['thresholds']['smoothing_mm'] == 0
  model = str(fitted[0] / 'manifestation_model.npz')
  assert run(studies, tmp_path / 'o', '--apply', model, '--smoothing-mm', '6') == 2
  words = '0 mm along the body is required, found 6 mm; give --smoothing-mm 0, or fit'
  assert words in capsys.readouterr().err
  for wrong in ('-1', 'nan', '31', 'much'):
    assert run(studies, tmp_path / 'o', '--smoothing-mm', wrong) == 2
    assert '--smoothing-mm: a number from 0 to 30' in capsys.readouterr().err


@pytest.mark.parametrize('text', ['0', 'nan', '100', 'thick'])
def test_what_is_no_thickness_is_refused(tmp_path, studies, models, capsys, text):
  assert run(studies, tmp_path / 'out', '--thickness-mm', text) == 2
  assert '--thickness-mm: a number above 0' in capsys.readouterr().err
  assert not (tmp_path / 'out').exists()


def test_describing_goes_on_where_it_stopped(tmp_path, studies):
  models = fake_features.LinearModels()
  places = features.name_studies(studies)
  first = features.describe_studies(places, tmp_path, models)
  assert len(first.sources) == STUDIES and list(first.refused) == ['broken.nii.gz']
  calls = models.feature_calls
  assert calls >= STUDIES
  torn = sorted(tmp_path.iterdir())[0]
  torn.write_bytes(torn.read_bytes()[:100])
  again = features.describe_studies(places, tmp_path, models)
  assert again.sources == first.sources
  assert 0 < models.feature_calls - calls <= 2


def test_a_volume_file_of_each_format_is_one_study(tmp_path):
  image = sitk.GetImageFromArray(np.zeros((2, 4, 4), np.int16))
  for name in ('a.mha', 'b.mhd', 'c.nrrd', 'd.nhdr', 'e.nii.gz', 'ct.seg.nrrd'):
    sitk.WriteImage(image, str(tmp_path / name))
  (tmp_path / 'f.zip').write_bytes(b'')
  (tmp_path / 'notes.txt').write_text('no volume')
  names = ['a.mha', 'b.mhd', 'c.nrrd', 'd.nhdr', 'e.nii.gz', 'f.zip']
  assert list(features.name_studies(tmp_path)) == names


def test_labels_choose_the_slices(tmp_path, studies):
  covid = {f'case{i}.nii.gz': i % 3 == 2 for i in range(STUDIES)}
  described = features.describe_studies(
    features.name_studies(studies),
    tmp_path,
    fake_features.LinearModels(),
    features.DescribeOptions(negative_slices=2, covid=covid),
  )
  for slices in described.store.studies(described.sources):
    # The focal studies are labelled clear: two of their negative slices each.
    is_positive = covid[slices.study_uid]
    assert slices.positive.all() if is_positive else (~slices.positive).sum() == 2


@pytest.mark.parametrize(
  'flags, words',
  [
    (('--clusters', '1'), '--clusters must be at least 2'),
    (('--most-clusters', '2'), '--most-clusters'),
    (('--seed', '-1'), '--seed'),
    (('--negative-slices', '-1'), '--negative-slices'),
    (('--kinds', 'absent.csv'), 'absent.csv'),
  ],
)
def test_flags_out_of_range_are_refused(
  tmp_path, studies, models, capsys, flags, words
):
  assert run(studies, tmp_path / 'out', *flags) == 2
  assert words in capsys.readouterr().err


def test_too_few_slices_and_no_study(tmp_path, models, capsys):
  assert run(tmp_path / 'absent', tmp_path / 'out') == 2
  (tmp_path / 'one').mkdir()
  volume = fake_features.make_study('none', 0)
  synthetic_case.write_nifti(tmp_path / 'one' / 'case.nii.gz', volume)
  assert run(tmp_path / 'one', tmp_path / 'out') == 2
  assert 'at least 10 slices are required' in capsys.readouterr().err
  (tmp_path / 'one' / 'case.nii.gz').write_bytes(b'no image')
  assert run(tmp_path / 'one', tmp_path / 'out') == 3
  assert 'at least one study' in capsys.readouterr().err
