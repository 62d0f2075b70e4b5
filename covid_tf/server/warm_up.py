"""Replays the requests that a model carries, before it is said to be available."""

import pathlib

from google.protobuf import message
import tensorflow as tf

from covid_tf.predictors import protocol
from covid_tf.server import predict
from covid_tf.server import refusal
from covid_tf.server import servable as servable_lib

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
