"""Writes the descriptors of TF Serving's protocol that the client carries.

A client needs message layouts, not TensorFlow: the protos of
tensorflow-serving-api, the TensorFlow protos that they import and gRPC's health
service serialize to tens of kilobytes. Run it where tensorflow-serving-api and
grpcio-health-checking are installed:

  python tools/generate_protocol.py covid_tf/predictors/protocol.binpb
"""

import argparse
import importlib

from google.protobuf import descriptor_pb2
from google.protobuf import wrappers_pb2

from covid_tf import streams
from covid_tf.storage import files

# Modules whose protos, with everything they import, are carried.
_MODULES = (
  'grpc_health.v1.health_pb2',
  'tensorflow_serving.apis.model_service_pb2',
  'tensorflow_serving.apis.prediction_log_pb2',
  'tensorflow_serving.apis.prediction_service_pb2',
  'tensorflow_serving.config.model_server_config_pb2',
)

# The operator's text files that the Python package leaves out, with the field
# names and numbers of tensorflow/serving's ssl_config.proto,
# monitoring_config.proto and session_bundle_config.proto.
_OPERATOR_MESSAGES = {
  'SSLConfig': (
    ('server_key', 1, 'string'),
    ('server_cert', 2, 'string'),
    ('custom_ca', 3, 'string'),
    ('client_verify', 4, 'bool'),
  ),
  'PrometheusConfig': (('enable', 1, 'bool'), ('path', 2, 'string')),
  'MonitoringConfig': (
    ('prometheus_config', 1, '.tensorflow.serving.PrometheusConfig'),
  ),
  'BatchingParameters': (
    ('max_batch_size', 1, '.google.protobuf.Int64Value'),
    ('batch_timeout_micros', 2, '.google.protobuf.Int64Value'),
    ('max_enqueued_batches', 3, '.google.protobuf.Int64Value'),
    ('num_batch_threads', 4, '.google.protobuf.Int64Value'),
    ('thread_pool_name', 5, '.google.protobuf.StringValue'),
    ('allowed_batch_sizes', 6, 'repeated int64'),
    ('pad_variable_length_inputs', 7, 'bool'),
  ),
}


def file_descriptor_set() -> descriptor_pb2.FileDescriptorSet:
  """Collects the descriptors, every file after those that it imports.

  Returns:
    The same bytes for the same package versions: imports are visited in their
    declared order, and nothing comes from a clock or a hash.
  """
  carried: dict[str, descriptor_pb2.FileDescriptorProto] = {}

  def add(descriptor):
    if descriptor.name in carried:
      return
    for dependency in descriptor.dependencies:
      add(dependency)
    proto = descriptor_pb2.FileDescriptorProto()
    descriptor.CopyToProto(proto)
    proto.ClearField('options')  # Settings of generated code in other languages.
    carried[descriptor.name] = proto

  for module in _MODULES:
    add(importlib.import_module(module).DESCRIPTOR)
  add(wrappers_pb2.DESCRIPTOR)
  return descriptor_pb2.FileDescriptorSet(file=(*carried.values(), _operator_file()))


def _operator_file() -> descriptor_pb2.FileDescriptorProto:
  file = descriptor_pb2.FileDescriptorProto(
    name='covid_tf/operator_config.proto',
    package='tensorflow.serving',
    syntax='proto3',
    dependency=[wrappers_pb2.DESCRIPTOR.name],
  )
  for name, fields in _OPERATOR_MESSAGES.items():
    message = file.message_type.add(name=name)
    for field_name, number, kind in fields:
      repeated = kind.startswith('repeated ')
      field = message.field.add(
        name=field_name,
        number=number,
        label=(
          descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
          if repeated
          else descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
        ),
      )
      kind = kind.removeprefix('repeated ')
      if kind.startswith('.'):
        field.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = kind
      else:
        field.type = descriptor_pb2.FieldDescriptorProto.Type.Value(
          f'TYPE_{kind.upper()}'
        )
  return file


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('output', help='the FileDescriptorSet to write')
  path = parser.parse_args().output
  data = file_descriptor_set().SerializeToString(deterministic=True)
  files.write_atomically(path, data)
  print(f'{path}: {len(data)} bytes')


if __name__ == '__main__':
  with streams.safe_streams():
    main()
