"""Models in process: found, compared with the contract, exported once for the demo."""

from concurrent import futures
import functools
import os
import threading
import time
import weakref

import numpy as np
import pytest
import tiny_answers
import tiny_models

from covid_tf import contract
from covid_tf import errors
from covid_tf import predictors
from covid_tf.predictors import differences
from covid_tf.predictors import in_process
from covid_tf.predictors import self_check
from covid_tf.sessions import refusal
from covid_tf.sessions import servable

_HU = np.random.default_rng(1).integers(-1000, 300, (5, 30, 20)).astype(np.int16)


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
  return tiny_models.export_both(tmp_path_factory.mktemp('models'), version=3, bias=0.5)


def test_answers_and_identities(exported):
  with predictors.load_models(exported) as models:
    np.testing.assert_array_equal(models.segment_lungs(_HU), tiny_answers.mask(_HU))
    np.testing.assert_allclose(
      models.grad_cam(_HU).covid_probability,
      tiny_answers.probability(_HU, 0.5),
      atol=1e-6,
    )
    assert models.features(_HU).features.shape == (5, contract.FEATURE_COUNT)
    assert models.grad_cam(_HU[:0]).cam_14.shape == (0, 14, 14)
    assert [
      (identity.name, identity.version, identity.card['bias'])
      for identity in models.identities()
    ] == [('lungs', 3, 0.5), ('classifier', 3, 0.5)]
    with models.study() as study:
      assert study.identities() == models.identities()


def test_crops_and_batches_change_no_answer(exported):
  with predictors.load_models(exported, batch_bytes=2 * _HU[0].nbytes) as models:
    np.testing.assert_array_equal(
      models.segment_lungs(_HU[:, 3:25, ::2]), tiny_answers.mask(_HU[:, 3:25, ::2])
    )


def test_the_highest_whole_version_is_taken(exported, tmp_path):
  for name in contract.SIGNATURES:
    (tmp_path / name).mkdir()
    (tmp_path / name / '0007').symlink_to(exported / name / '3')
    (tmp_path / name / '9').mkdir()  # Still being copied: no saved_model.pb.
    (tmp_path / name / 'old').mkdir()
  with predictors.load_models(tmp_path) as models:
    assert [identity.version for identity in models.identities()] == [7, 7]


def test_a_folder_without_models(tmp_path):
  with pytest.raises(errors.ModelError, match='lungs: required a numbered folder'):
    predictors.load_models(tmp_path)


def test_a_damaged_model_is_named(exported, tmp_path):
  for name in contract.SIGNATURES:
    (tmp_path / name).mkdir()
  (tmp_path / 'lungs' / '3').symlink_to(exported / 'lungs' / '3')
  (tmp_path / 'classifier' / '4').mkdir()
  (tmp_path / 'classifier' / '4' / 'saved_model.pb').write_bytes(b'no model')
  with pytest.raises(errors.ModelError, match='classifier/4: cannot be loaded'):
    predictors.load_models(tmp_path)


def test_a_model_that_breaks_the_contract(exported, tmp_path):
  (tmp_path / 'lungs').symlink_to(exported / 'lungs')
  tiny_models.export(
    tmp_path, 'classifier', signature_names=(contract.SERVING_DEFAULT, contract.CARD)
  )
  with pytest.raises(errors.ModelError, match='classifier: required the signatures'):
    predictors.load_models(tmp_path)


def test_a_model_that_computes_wrong(exported, tmp_path, monkeypatch):
  monkeypatch.setattr(self_check, '_passed', self_check.Passed())
  (tmp_path / 'lungs').symlink_to(exported / 'lungs')
  with predictors.load_models(exported) as models:
    reference = models.self_check('classifier')
  tiny_models.export(tmp_path, 'classifier', bias=2.0, self_check=reference)
  with pytest.raises(errors.ModelError, match='classifier version 1 computes wrong'):
    predictors.load_models(tmp_path)
  with predictors.load_models(tmp_path, self_check=False) as models:
    assert models.segment_lungs(_HU).shape == _HU.shape


def test_what_is_narrower_is_wrong_where_nothing_computes_so(
  exported, tmp_path, monkeypatch
):
  monkeypatch.setattr(self_check, '_passed', self_check.Passed())
  (tmp_path / 'lungs').symlink_to(exported / 'lungs')
  with predictors.load_models(exported) as models:
    reference = models.self_check('classifier')
  for bias in (0.51, 0.5):
    tiny_models.export(tmp_path, 'classifier', bias=bias, self_check=reference)
    if bias == 0.51:
      with pytest.raises(errors.ModelError, match='computes wrong'):
        predictors.load_models(tmp_path)
    else:
      predictors.load_models(tmp_path).close()


def test_models_are_asked_once_a_process(exported, monkeypatch):
  monkeypatch.setattr(self_check, '_passed', self_check.Passed())
  asked = []
  monkeypatch.setattr(
    differences,
    'compare',
    lambda *arguments: (
      asked.append(arguments)
      or [differences.Comparison('', '', 0.0, 1.0, differences.Verdict.RIGHT)]
    ),
  )
  predictors.load_models(exported).close()
  count = len(asked)
  assert count >= 4
  predictors.load_models(exported).close()
  assert len(asked) == count


def test_a_model_is_closed_once_nobody_runs_it(exported):
  loaded = servable.Servable(exported / 'classifier' / '3')
  signature = loaded.signatures[contract.CARD]
  fetches = [info.name for info in signature.outputs.values()]
  began, go_on = threading.Event(), threading.Event()
  run = loaded._callable((), tuple(fetches))

  def slow(*feeds):
    began.set()
    assert go_on.wait(30)
    return run(*feeds)

  loaded._callable = functools.lru_cache(lambda *_: slow)
  with futures.ThreadPoolExecutor(3) as pool:
    running = pool.submit(loaded.run, {}, fetches)
    assert began.wait(30)
    closing = pool.submit(loaded.close)
    while not loaded._is_closed:
      time.sleep(0.001)
    with pytest.raises(refusal.Refusal, match='found it closed'):
      loaded.run({}, fetches)
    assert not closing.done()
    go_on.set()
    assert running.result()[0].size == 1
    closing.result()
  loaded.close()  # Again.
  with pytest.raises(refusal.Refusal, match='found it closed'):
    loaded.run({}, fetches)


@pytest.mark.parametrize('delay_s', [0, 0.005, 0.02, 0.05])
def test_models_are_closed_while_other_threads_ask_them(exported, delay_s):
  models = predictors.load_models(exported, batch_bytes=_HU[0].nbytes, self_check=False)

  def ask():
    while True:
      models.grad_cam(_HU)

  with futures.ThreadPoolExecutor(3) as pool:
    asking = [pool.submit(ask) for _ in range(3)]
    time.sleep(delay_s)
    models.close()
    for one in asking:
      with pytest.raises(errors.ModelError, match='closed; load'):
        one.result()
  for ask in (models.segment_lungs, models.grad_cam):
    with pytest.raises(errors.ModelError, match='closed; load'):
      ask(_HU)
  with pytest.raises(errors.ModelError, match='closed; load'):
    models.self_check('lungs')
  models.close()


def test_demo_models_are_exported_once(monkeypatch, tmp_path, exported):
  from covid_tf.models import export as export_lib

  calls = []

  def export(directory):
    calls.append(directory)
    assert not any(tmp_path.glob('cache/covid-tf/demo-models-*'))
    for name in contract.SIGNATURES:
      (directory / name).mkdir()
      (directory / name / 'made').write_text('')

  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  monkeypatch.setattr(export_lib, 'export_demo_models', export)
  first, second = in_process.demo_models(), in_process.demo_models()
  assert first == second and len(calls) == 1
  assert (first / 'lungs' / 'made').exists()


def test_old_exports_are_removed(monkeypatch, tmp_path):
  from covid_tf.models import export as export_lib

  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  monkeypatch.setattr(export_lib, 'export_demo_models', lambda directory: directory)
  old, recent = (tmp_path / 'covid-tf' / f'demo-models-{name}' for name in ('a', 'b'))
  for folder in (old, recent):
    folder.mkdir(parents=True)
  os.utime(old, (0, 0))
  in_process.demo_models()
  assert recent.exists() and not old.exists()


def test_an_export_that_fails_leaves_nothing(monkeypatch, tmp_path):
  from covid_tf.models import export as export_lib

  def export(directory):
    (directory / 'half').write_text('')
    raise errors.ModelError('weights: damaged')

  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  monkeypatch.setattr(export_lib, 'export_demo_models', export)
  with pytest.raises(errors.ModelError, match='damaged'):
    in_process.demo_models()
  assert not list((tmp_path / 'covid-tf').glob('*demo-models*'))


def test_an_unloaded_version_frees_its_session(exported):
  loaded = servable.Servable(exported / 'classifier' / '3')
  session = weakref.ref(loaded._session)
  loaded.run(
    {
      loaded.signatures['serving_default'].inputs['hu'].name: np.zeros(
        (1, 4, 4), np.int16
      )
    },
    [loaded.signatures['serving_default'].outputs['covid_probability'].name],
  )
  loaded.close()
  assert session() is None
