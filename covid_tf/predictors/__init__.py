"""Clients of the two networks: a server over gRPC, or SavedModels in process.

`connect` needs no TensorFlow; `load_models` brings it in when it is called.
"""

from covid_tf.predictors.grpc import connect
from covid_tf.predictors.in_process import load_models
from covid_tf.predictors.transport import TLS

__all__ = ('TLS', 'connect', 'load_models')
