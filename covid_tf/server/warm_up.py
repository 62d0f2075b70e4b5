"""What a version goes through before it is said to be available.

The warm-up requests that it carries are replayed, and a version that carries reference
answers must give them.
"""

from collections.abc import Iterator, Mapping
import logging
import pathlib

from google.protobuf import message
import grpc
import numpy as np
import tensorflow as tf

from covid_tf import contract
from covid_tf import errors
from covid_tf.predictors import answers as answers_lib
from covid_tf.predictors import identity
from covid_tf.predictors import protocol
from covid_tf.predictors import self_check
from covid_tf.server import predict
from covid_tf.server import refusal
from covid_tf.server import servable as servable_lib

_log = logging.getLogger(__name__)

FILE = pathlib.PurePath('assets.extra', 'tf_serving_warmup_requests')
_MOST_RECORDS = 1000  # TF Serving's limit.


def replay(servable: servable_lib.Servable, version: int) -> int:
  """Runs every Predict request of the model's warm-up file.

  Args:
    servable: the loaded model.
    version: its number.

  Returns:
    How many records were read; 0 without a file.

  Raises:
    refusal.Refusal: a record cannot be read or its request is refused, or there
      are too many: such a version does not become available.
  """
  path = servable.path / FILE
  if not path.exists():
    return 0
  count = 0
  try:
    for record in tf.compat.v1.io.tf_record_iterator(str(path)):
      count += 1
      if count > _MOST_RECORDS:
        raise refusal.invalid_argument(
            'Number of warmup records exceeds the maximum '
            f'({_MOST_RECORDS}) at {path}')
      _replay_one(servable, version, record, path)
  except tf.errors.OpError as error:
    raise refusal.Refusal(
        error.error_code, f'{error.message}. Please verify your warmup data is in '
        'TFRecord format.') from error
  return count


class ComputesWrongError(refusal.Refusal):
  """A version does not give its own reference answers: another try is no remedy."""


def check(servable: servable_lib.Servable, version: int = 1) -> None:
  """Asks a version whether it computes right; one without references is let through.

  Args:
    servable: the loaded model.
    version: its number.

  Raises:
    ComputesWrongError: it does not, on this machine, in this process.
    refusal.Refusal: its signatures cannot be run.
  """
  kind = next((name for name in contract.SIGNATURES
               if identity.has_self_check(name, servable.signatures)
               and set(contract.SIGNATURES[name]) <= set(servable.signatures)), None)
  if kind is None:
    if contract.CARD in servable.signatures:  # Of ours, but older.
      _log.warning('%s: has no self_check, as exports of today have: served without '
                   'asking whether it computes right.', servable.path)
    return
  asked = _Asked(servable)
  try:
    known = identity.read_card(
        str(servable.path), kind, version, asked.run(contract.CARD, {})['card'])
    self_check.check_short(
        str(servable.path), asked, known, may_be_narrower=computes_on_gpu())
  except errors.ModelError as error:
    raise ComputesWrongError(grpc.StatusCode.DATA_LOSS, str(error)) from error


def computes_on_gpu() -> bool:
  """Whether float32 may be computed in TF32 here."""
  return bool(tf.config.list_physical_devices('GPU'))


class _Asked:
  """A servable as `self_check` asks it."""

  def __init__(self, servable: servable_lib.Servable):
    self._servable = servable

  def run(self, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of one signature, by name."""
    signature = self._servable.signatures[name]
    arrays = self._servable.run(
        {signature.inputs[key].name: value for key, value in inputs.items()},
        [info.name for info in signature.outputs.values()])
    return dict(zip(signature.outputs, arrays, strict=True))

  def answers(self, model, signature, hu) -> Iterator:
    outputs = self.run(signature, {'hu': hu})
    yield range(len(hu)), answers_lib.check(
        str(self._servable.path), model, signature, outputs, hu.shape, 0)

  def self_check(self, model) -> dict[str, np.ndarray]:
    return answers_lib.check_reference(
        str(self._servable.path), model, self.run(contract.SELF_CHECK, {}))


def _replay_one(servable, version, record, path) -> None:
  try:
    log = protocol.PredictionLog.FromString(record)
  except message.DecodeError as error:
    raise refusal.invalid_argument(
        f'Failed to parse warmup record from {path}') from error
  kind = log.WhichOneof('log_type')
  if kind != 'predict_log':
    raise refusal.invalid_argument(
        f'Unsupported log_type for warmup: {kind}; this server replays Predict only')
  predict.predict(servable, version, log.predict_log.request)
