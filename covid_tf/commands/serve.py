"""`covid-tf serve`: the models of a folder over TF Serving's gRPC protocol."""

import argparse
import importlib.util
import signal
import threading

from covid_tf import errors
from covid_tf.commands import serve_flags
from covid_tf.predictors import tensorflow_defaults
from covid_tf.server import model_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares TF Serving's flags and ours."""
  serve_flags.add_arguments(parser)


def parse(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
  """Parses `argv`; flags of TF Serving that are unknown here are judged later."""
  namespace, extra = parser.parse_known_args(argv)
  namespace.extra = extra
  return namespace


def run(args: argparse.Namespace) -> int:
  """Serves until SIGINT or SIGTERM; returns 0."""
  options = serve_flags.parse_options(args, args.extra)
  if importlib.util.find_spec('tensorflow') is None:
    raise errors.ModelError(
        'serving models requires TensorFlow, found none; '
        "in a checkout of covid_tf: pip install '.[models-cpu]'.")
  model_config.configuration(options)  # A wrong file is told before TensorFlow loads.
  tensorflow_defaults.set_defaults()
  # While models load there is nothing to drain: a stop ends the wait for them.
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  from covid_tf.server import serving

  server = serving.Server(options)
  stop = threading.Event()
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: stop.set())
  models = ', '.join(f'{name} {version}' for name, version in server.models())
  print(f'covid-tf serve: ready on {", ".join(server.addresses)} ({models})',
        flush=True)
  stop.wait()
  server.stop()
  return 0
