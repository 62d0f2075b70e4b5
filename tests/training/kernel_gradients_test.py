"""A training does not begin where the gradients of its own convolutions are wrong."""

import subprocess

import keras
import pytest

from covid_tf import errors
from covid_tf.training import kernel_gradients

layers = keras.layers


def _model(channels: int, of: int = 16, kernel: int = 1, strides: int = 2):
  inputs = layers.Input((24, 24, of))
  nested = keras.Sequential(
    [layers.Conv2D(channels, kernel, strides=strides, name='doubtful')]
  )
  return keras.Model(inputs, nested(inputs))


@pytest.fixture(name='answers')
def _answers(monkeypatch):
  """Lets a test say what the process of a trial ends with; lists the trials."""
  trials = []

  def ends_with(status: int, printed: str = ''):
    def run(command, **_):
      trials.append(command[-1])
      return subprocess.CompletedProcess(command, status, printed, '')

    monkeypatch.setattr(kernel_gradients.subprocess, 'run', run)
    return trials

  return ends_with


@pytest.mark.parametrize(
  'status, printed, found',
  [
    (-11, '', 'ended by signal 11'),
    (1, '', 'ended with status 1'),
    (0, '145.0\n', 'off by 1.4e+02'),
    (0, 'nan\n', 'off by nan'),
  ],
)
def test_a_wrong_gradient_is_refused_with_the_layer_and_a_remedy(
  answers, status, printed, found
):
  answers(status, printed)
  with pytest.raises(errors.UsageError) as caught:
    kernel_gradients.check(_model(8))
  message = str(caught.value)
  assert 'layer doubtful (16 to 8 channels' in message and found in message
  assert 'TF_ENABLE_ONEDNN_OPTS=0' in message and '16 channels' in message


def test_each_kind_of_convolution_is_tried_once(answers):
  trials = answers(0, '1e-7\n')
  inputs = layers.Input((24, 24, 16))
  kernel_gradients.check(
    keras.Model(
      inputs, layers.Add()([layers.Conv2D(8, 1, strides=2)(inputs) for _ in range(3)])
    )
  )
  assert len(trials) == 1 and '(16, 8)' in trials[0] and '(24, 24)' in trials[0]


@pytest.mark.parametrize(
  'other',
  [{'channels': 32}, {'channels': 8, 'kernel': 3}, {'channels': 8, 'strides': 1}],
)
def test_other_convolutions_need_no_trial(answers, other):
  trials = answers(-11)
  kernel_gradients.check(_model(**other))
  assert not trials


def test_what_is_frozen_needs_no_trial(answers):
  trials = answers(-11)
  model = _model(8)
  model.trainable = False
  kernel_gradients.check(model)
  assert not trials


def test_a_trial_in_a_process_of_its_own_finds_right_ones_right():
  convolution = kernel_gradients.Convolution((16, 16), (2, 2), (24, 24), 'float32')
  assert not kernel_gradients._found(convolution)


def test_few_channels_are_right_or_refused_here():
  """On processors with AVX-512 the process of the trial dies; this one does not."""
  try:
    kernel_gradients.check(_model(6, of=5))
  except errors.UsageError as error:
    assert '5 to 6 channels' in str(error)
  else:
    right = kernel_gradients.Convolution((5, 6), (2, 2), (24, 24), 'float32')
    assert kernel_gradients.largest_error(right) < 1e-5
