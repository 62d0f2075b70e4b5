"""Doors to the two networks: a server over gRPC, or SavedModels in process.

`connect` needs no TensorFlow; `load_models` brings it in when it is called.
"""

from covid_tf.predictors.channels import TLS
from covid_tf.predictors.grpc import connect
from covid_tf.predictors.saved_model import load_models

__all__ = ('TLS', 'connect', 'load_models')
