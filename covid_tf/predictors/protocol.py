"""TF Serving's messages without TensorFlow.

The classes come from a FileDescriptorSet (tools/generate_protocol.py writes it)
in a descriptor pool of their own: a TensorFlow in the same process registers the
same names in the default pool, and neither notices the other.
"""

import importlib.resources
from typing import Any

from google.protobuf import descriptor_pb2
from google.protobuf import descriptor_pool
from google.protobuf import message_factory

PREDICTION_SERVICE = 'tensorflow.serving.PredictionService'
MODEL_SERVICE = 'tensorflow.serving.ModelService'
HEALTH_SERVICE = 'grpc.health.v1.Health'


def descriptors() -> descriptor_pb2.FileDescriptorSet:
  """Reads the shipped descriptors, every file after those that it imports."""
  data = importlib.resources.files(__package__).joinpath('protocol.binpb')
  return descriptor_pb2.FileDescriptorSet.FromString(data.read_bytes())


def pool_of(files: descriptor_pb2.FileDescriptorSet) -> descriptor_pool.DescriptorPool:
  """Puts the files into a new pool, which shares nothing with any other."""
  pool = descriptor_pool.DescriptorPool()
  for file in files.file:
    pool.Add(file)
  return pool


def message_class(pool: descriptor_pool.DescriptorPool, name: str) -> Any:
  """The Python class of the message `name` (with its package) of `pool`."""
  return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


_POOL = pool_of(descriptors())


def _serving(name: str) -> Any:
  return message_class(_POOL, f'tensorflow.serving.{name}')


TensorProto = message_class(_POOL, 'tensorflow.TensorProto')
ModelSpec = _serving('ModelSpec')
PredictRequest = _serving('PredictRequest')
PredictResponse = _serving('PredictResponse')
GetModelMetadataRequest = _serving('GetModelMetadataRequest')
GetModelMetadataResponse = _serving('GetModelMetadataResponse')
SignatureDefMap = _serving('SignatureDefMap')
GetModelStatusRequest = _serving('GetModelStatusRequest')
GetModelStatusResponse = _serving('GetModelStatusResponse')
ModelVersionStatus = _serving('ModelVersionStatus')
ReloadConfigRequest = _serving('ReloadConfigRequest')
ReloadConfigResponse = _serving('ReloadConfigResponse')
PredictionLog = _serving('PredictionLog')

# The operator's text files.
ModelServerConfig = _serving('ModelServerConfig')
SSLConfig = _serving('SSLConfig')
MonitoringConfig = _serving('MonitoringConfig')
BatchingParameters = _serving('BatchingParameters')

HealthCheckRequest = message_class(_POOL, 'grpc.health.v1.HealthCheckRequest')
HealthCheckResponse = message_class(_POOL, 'grpc.health.v1.HealthCheckResponse')
