"""A study as the tutorials write it: the official stub, tf.make_ndarray."""

import functools

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc

from covid_tf.predictors import interface


@functools.cache
def _stub(address: str):
  return prediction_service_pb2_grpc.PredictionServiceStub(
    grpc.insecure_channel(
      address,
      [('grpc.max_receive_message_length', -1), ('grpc.max_send_message_length', -1)],
    )
  )


def study(address: str, full, crops) -> None:
  """Asks for lungs and Grad-CAM, in the same batches as our client."""
  for model, signature, hu in (
    ('lungs', 'serving_default', full),
    ('classifier', 'grad_cam', crops),
  ):
    for piece in interface.ranges(hu.shape, interface.BATCH_BYTES):
      request = predict_pb2.PredictRequest()
      request.model_spec.name = model
      request.model_spec.signature_name = signature
      request.inputs['hu'].CopyFrom(tf.make_tensor_proto(hu[piece.start : piece.stop]))
      response = _stub(address).Predict(request, timeout=60)
      for proto in response.outputs.values():
        tf.make_ndarray(proto)
