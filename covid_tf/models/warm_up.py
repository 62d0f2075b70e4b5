"""Requests that a server replays when it loads a model, before it says it is ready.

TensorFlow plans and tunes a graph at its first runs; with these the first study
does not wait for that. Format: a TFRecord of PredictionLog under
assets.extra/tf_serving_warmup_requests.
"""

import os

import numpy as np
import tensorflow as tf

from covid_tf import contract
from covid_tf.predictors import protocol
from covid_tf.predictors import tensors

FILE_NAME = 'tf_serving_warmup_requests'

_AIR_HU = -1000
# A whole slice of the usual matrix, and a lung crop of the usual size.
_SLICE_SHAPE = {
    contract.LUNGS_MODEL: (1, 512, 512),
    contract.CLASSIFIER_MODEL: (1, 256, 352),
}


def write_requests(path: str | os.PathLike, model_name: str) -> None:
  """Writes one request for every signature of a model that takes slices."""
  with tf.io.TFRecordWriter(os.fspath(path)) as writer:
    for signature_name, signature in contract.SIGNATURES[model_name].items():
      if signature.inputs:
        writer.write(_log(model_name, signature_name).SerializeToString())


def _log(model_name: str, signature_name: str):
  log = protocol.PredictionLog()
  request = log.predict_log.request
  request.model_spec.name = model_name
  request.model_spec.signature_name = signature_name
  hu = np.full(_SLICE_SHAPE[model_name], _AIR_HU, np.int16)
  tensors.fill(request.inputs['hu'], hu)
  return log
