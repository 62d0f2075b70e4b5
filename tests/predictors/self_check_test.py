"""Models that compute right, wrong, differently, or in a narrower number format."""

import argparse
import json
import logging
import os
import signal
import threading

import fake_serving
import numpy as np
import pytest
import tiny_answers

from covid_tf import cli
from covid_tf import contract
from covid_tf import errors
from covid_tf import predictors
from covid_tf.commands import model_flags
from covid_tf.predictors import reference_slices
from covid_tf.predictors import self_check
from covid_tf.predictors import tensors


@pytest.fixture(name='fake')
def _fake(monkeypatch):
  """A server whose models carry references; nothing was checked before."""
  monkeypatch.setattr(self_check, '_passed', self_check.Passed())
  server = fake_serving.FakeServing()
  for name in contract.SIGNATURES:
    server.models[name] = _model(name)
  yield server
  server.stop()


def _model(name, **options):
  return fake_serving.FakeModel(
    name, self_check=tiny_answers.reference(name), **options
  )


def _check(fake, *flags, capsys):
  """(status, what was found as JSON, standard error) of `covid-tf check`."""
  status = cli.main(
    ['check', '--server', fake.address, '--batches', '10', '--json', *flags]
  )
  printed = capsys.readouterr()
  return status, json.loads(printed.out), printed.err


def _change(fake, change, is_due):
  """Lets the server change some answers of `grad_cam`, counted from 1."""
  lock, counted = threading.Lock(), [0]

  def after(request, response):
    if request.model_spec.signature_name != contract.GRAD_CAM:
      return response
    with lock:
      counted[0] += 1
      number = counted[0]
    if is_due(number):
      for proto in response.outputs.values():
        array = change(tensors.read(proto))
        proto.Clear()
        tensors.fill_typed(proto, array)
    return response

  fake.after = after


def _bfloat16(array):
  return (array.view(np.uint32) & 0xFFFF0000).view(np.float32)


def test_a_server_that_is_right(fake, capsys):
  status, found, err = _check(fake, capsys=capsys)
  assert status == 0 and err == '' and found['right']
  lungs, classifier = found['models']
  assert lungs['name'] == 'lungs' and classifier['version'] == 1
  assert {(row['signature'], row['output']) for row in classifier['comparisons']} == {
    ('serving_default', 'covid_probability'),
    ('grad_cam', 'covid_probability'),
    ('grad_cam', 'cam_28'),
    ('grad_cam', 'sum of cam_28'),
    ('grad_cam', 'cam_14'),
    ('grad_cam', 'sum of cam_14'),
  }
  for model in found['models']:
    assert model['batches'] == 20 and model['answers'] == [20]
    assert model['largest_difference'] == 0 and not model['notes']


def test_the_table_says_who_and_what(fake, capsys):
  assert cli.main(['check', '--server', fake.address, '--batches', '2']) == 0
  text = capsys.readouterr().out
  assert 'lungs version 1, card ' in text and 'float32' in text
  assert 'one batch 4 times, one and two at once: all the same bits' in text
  assert text.endswith(f'{fake.address}: right.\n')


@pytest.mark.parametrize(
  'name, words',
  [
    ('classifier', 'signature grad_cam, covid_probability'),
    ('lungs', 'signature serving_default, lung_mask'),
  ],
)
def test_wrong_answers_are_named(fake, name, words, capsys):
  fake.models[name].self_check = {
    key: value if key == 'hu' else 1 - value
    for key, value in fake.models[name].self_check.items()
  }
  with pytest.raises(errors.ModelError) as caught:
    predictors.connect(fake.address)
  text = str(caught.value)
  assert f'{fake.address}: {name} version 1 computes wrong' in text
  assert words.partition(',')[0] in text and 'found a difference of' in text
  assert 'export the model again' in text and 'TF_ENABLE_ONEDNN_OPTS=0' in text
  status, found, err = _check(fake, capsys=capsys)
  assert status == 4 and not found['right'] and 'computes wrong' in err
  assert err.count('\n') == 1
  assert [model['right'] for model in found['models']] == [
    model['name'] != name for model in found['models']
  ]


def test_a_changed_weight_is_wrong_even_where_it_is_small(fake, capsys):
  fake.models['classifier'].bias = 3e-3
  status, found, _ = _check(fake, capsys=capsys)
  assert status == 4
  assert found['models'][1]['comparisons'][0]['verdict'] != 'right'


def test_the_short_form_can_be_left_out(fake):
  fake.models['classifier'].bias = 2.0
  predictors.connect(fake.address, self_check=False).close()
  assert not fake.predicted
  with pytest.raises(errors.ModelError, match='computes wrong'):
    predictors.connect(fake.address)


def test_a_flag_of_every_command_leaves_it_out(fake):
  fake.models['classifier'].bias = 2.0
  parser = argparse.ArgumentParser()
  model_flags.add_model_arguments(parser)
  flags = ['--server', fake.address]
  with model_flags.open_models(parser.parse_args([*flags, '--no-self-check'])):
    assert not fake.predicted
  with pytest.raises(errors.ModelError, match='computes wrong'):
    with model_flags.open_models(parser.parse_args(flags)):
      pass


def test_the_short_form_runs_once_a_process_and_version(fake):
  predictors.connect(fake.address).close()
  asked = len(fake.predicted)
  assert asked > 3
  with predictors.connect(fake.address) as models:
    assert len(fake.predicted) == asked
    fake.models['classifier'] = _model('classifier', version=2, bias=1.0)
    with pytest.raises(errors.ModelError, match='classifier version 2 computes wrong'):
      with models.study():
        pass


@pytest.mark.parametrize(
  'change',
  [
    lambda array: np.ascontiguousarray(array[::-1]),
    lambda array: array + np.float32(1e-6) * (array < 0.9),
  ],
)
def test_an_answer_that_differs_once_is_found(fake, change, capsys):
  _change(fake, change, lambda number: number == 13)
  status, found, err = _check(fake, capsys=capsys)
  assert status == 4 and found['models'][1]['answers'] == [19, 1]
  assert 'does not repeat itself' in err and 'classifier version 1' in err
  assert found['models'][0]['right']


def test_answers_that_differ_every_time_are_no_machines(fake, capsys):
  random = np.random.default_rng(0)
  _change(
    fake,
    lambda array: array * np.float32(1 - 1e-6 * random.random()),
    lambda number: True,
  )
  status, found, err = _check(fake, capsys=capsys)
  assert status == 4 and len(found['models'][1]['answers']) > 3
  assert 'does not repeat itself' in err


def test_two_machines_behind_one_address_are_right_and_named(fake, capsys):
  _change(fake, lambda array: array * np.float32(1 - 1e-6), lambda number: number % 2)
  status, found, err = _check(fake, capsys=capsys)
  assert status == 0 and err == ''
  classifier = found['models'][1]
  assert classifier['several_machines'] and len(classifier['answers']) == 2
  assert 0 < classifier['spread'] < 1e-5
  assert 'several machines behind one address' in classifier['notes'][0]


def test_one_of_two_machines_is_wrong(fake, capsys):
  _change(
    fake, lambda array: np.ascontiguousarray(array[::-1]), lambda number: number % 2
  )
  status, found, err = _check(fake, capsys=capsys)
  assert status == 4 and 'computes wrong' in err
  assert not found['models'][1]['several_machines']


def test_a_narrower_number_format_is_named(fake, capsys, caplog):
  _change(fake, _bfloat16, lambda number: True)
  status, found, err = _check(fake, capsys=capsys)
  assert status == 4 and 'narrower number format' in err and 'TF32' in err
  status, found, err = _check(fake, '--accept-narrower', capsys=capsys)
  assert status == 0 and 'narrower number format' in found['models'][1]['notes'][0]
  with caplog.at_level(logging.WARNING):
    predictors.connect(fake.address).close()  # A GPU may compute so: a warning.
  assert 'narrower number format' in caplog.text


def test_a_narrower_number_format_that_the_card_names_is_right(fake, capsys, caplog):
  fake.models['classifier'].card = {'compute_dtype': 'bfloat16'}
  _change(fake, _bfloat16, lambda number: True)
  with caplog.at_level(logging.WARNING):
    predictors.connect(fake.address).close()
  assert not caplog.text
  status, found, _ = _check(fake, capsys=capsys)
  assert status == 0 and found['models'][1]['compute_dtype'] == 'bfloat16'
  assert 'as its card says' in found['models'][1]['notes'][0]


def test_models_without_references_are_used_and_said_to_be_unchecked(fake, capsys):
  fake.models = {name: fake_serving.FakeModel(name) for name in contract.SIGNATURES}
  predictors.connect(fake.address).close()
  assert not fake.predicted
  status, found, _ = _check(fake, capsys=capsys)
  assert status == 0 and not found['models'][0]['has_references']
  assert 'no reference answers' in found['models'][0]['notes'][0]
  assert cli.main(['check', '--server', fake.address, '--batches', '1']) == 0
  assert 'whether it is right cannot be said' in capsys.readouterr().out


def test_another_exporters_self_check_is_not_taken_for_ours(fake):
  fake.models['classifier'].signatures.signature_def[contract.SELF_CHECK].outputs.pop(
    'cam_14'
  )
  predictors.connect(fake.address).close()
  assert {model for model, *_ in fake.predicted} == {'lungs'}


def test_damaged_references_are_refused(fake):
  fake.models['lungs'].self_check['lung_probability'][0, 0, 0] = np.nan
  with pytest.raises(errors.ModelError, match='lung_probability'):
    predictors.connect(fake.address)


def test_a_server_that_fails_while_it_is_checked(fake, capsys):
  def after(request, response):
    del request
    return response if len(fake.predicted) < 30 else b'no response'

  fake.after = after
  status, found, err = _check(fake, capsys=capsys)
  assert status == 4 and 'cannot be read' in err and not found['right']


class _Dying:
  """Arguments that no process survives to receive."""

  def __reduce__(self):
    return os.kill, (_Own(), signal.SIGSEGV)


class _Own:
  """The number of whichever process unpickles it."""

  def __reduce__(self):
    return os.getpid, ()


def test_models_that_end_the_process_are_named_by_its_signal(monkeypatch, capsys):
  monkeypatch.setattr(
    argparse.ArgumentParser,
    'parse_args',
    lambda *_: argparse.Namespace(
      server=None,
      models='exported',
      batches=1,
      json=False,
      dying=_Dying(),
      quiet=False,
      verbose=False,
      log_file=None,
    ),
  )
  assert cli.main(['check']) == 4
  assert capsys.readouterr().err.startswith(
    'covid-tf check: exported: the process that computed was ended by SIGSEGV '
    '(segmentation fault): '
  )


def test_models_of_a_folder_are_checked(tmp_path, capsys):
  tiny_models = pytest.importorskip('tiny_models')
  models = tiny_models.export_both(tmp_path)
  assert cli.main(['check', '--models', str(models), '--batches', '3']) == 0
  assert capsys.readouterr().out.endswith(f'{models}: right.\n')


def test_wrong_use(capsys):
  assert cli.main(['check', '--batches', '0']) == 2
  assert '--batches' in capsys.readouterr().err


def test_reference_slices_look_like_a_chest():
  for slices in (reference_slices.whole_slices(), reference_slices.lung_crops()):
    assert slices.dtype == np.int16
    for hu in slices:
      shares = [
        np.mean((hu > low) & (hu < high))
        for low, high in ((-950, -700), (-150, -50), (0, 100), (150, 500))
      ]
      assert min(shares) > 0.005, shares  # Lung, fat, soft tissue, bone.
  assert (
    np.mean(np.abs(slices[-1] + 330) < 150)
    > np.mean(np.abs(slices[0] + 330) < 150) + 0.1
  )  # Opacities grow.
