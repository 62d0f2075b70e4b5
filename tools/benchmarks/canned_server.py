"""A model server that computes nothing: its cost is the wire's, and gRPC's.

Started by `serving.py`. Every signature answers zeros of the contract's shapes,
serialized once a shape, so that what is left of a study is its client.
"""

import argparse
from concurrent import futures
import functools
import json
import sys

import grpc
import numpy as np

from covid_tf import contract
from covid_tf import streams
from covid_tf.predictors import protocol
from covid_tf.predictors import tensors


@functools.cache
def _answer(model: str, signature: str, shape: tuple[int, ...]) -> bytes:
  response = tensors.PredictResponse()
  response.model_spec.name = model
  response.model_spec.version.value = 1
  response.model_spec.signature_name = signature
  for spec in contract.SIGNATURES[model][signature].outputs:
    sizes = [
      asked if size is None else size
      for size, asked in zip(spec.shape, (*shape, 0), strict=False)
    ]
    array = (
      np.array([json.dumps({'name': model}).encode()], object)
      if spec.dtype == 'object'
      else np.zeros(sizes, spec.dtype)
    )
    tensors.fill_packed(response.outputs[spec.name], array)
  return response.SerializeToString()


def _predict(request, context) -> bytes:
  del context
  spec = request.model_spec
  shape = tensors.shape_of(request.inputs['hu']) if request.inputs else ()
  return _answer(spec.name, spec.signature_name, shape)


def _metadata(request, context):
  del context
  signatures = protocol.SignatureDefMap()
  for name, signature in contract.SIGNATURES[request.model_spec.name].items():
    for specs, infos in (
      (signature.inputs, signatures.signature_def[name].inputs),
      (signature.outputs, signatures.signature_def[name].outputs),
    ):
      for spec in specs:
        infos[spec.name].dtype = tensors.DTYPE_NUMBERS[np.dtype(spec.dtype)]
        for size in spec.shape:
          infos[spec.name].tensor_shape.dim.add(size=-1 if size is None else size)
  response = protocol.GetModelMetadataResponse()
  response.metadata['signature_def'].Pack(signatures)
  return response.SerializeToString()


def main() -> None:
  argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
  server = grpc.server(
    futures.ThreadPoolExecutor(4),
    options=[
      ('grpc.max_receive_message_length', -1),
      ('grpc.max_send_message_length', -1),
    ],
  )
  server.add_generic_rpc_handlers(
    (
      grpc.method_handlers_generic_handler(
        protocol.PREDICTION_SERVICE,
        {
          'Predict': grpc.unary_unary_rpc_method_handler(
            _predict, protocol.PredictRequest.FromString
          ),
          'GetModelMetadata': grpc.unary_unary_rpc_method_handler(
            _metadata, protocol.GetModelMetadataRequest.FromString
          ),
        },
      ),
    )
  )
  port = server.add_insecure_port('127.0.0.1:0')
  server.start()
  print(f'ready on 127.0.0.1:{port}', flush=True)
  sys.stdin.read()  # Until whoever started it is gone.


if __name__ == '__main__':
  with streams.safe_streams():
    main()
