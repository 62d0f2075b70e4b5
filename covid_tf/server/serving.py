"""The server as a whole: built, started, drained."""

from concurrent import futures
import logging
import threading

import grpc
from grpc_health.v1 import health
from grpc_health.v1 import health_pb2
from grpc_health.v1 import health_pb2_grpc

from covid_tf import errors
from covid_tf.predictors import protocol
from covid_tf.server import admission
from covid_tf.server import listening
from covid_tf.server import manager as manager_lib
from covid_tf.server import model_config
from covid_tf.server import options as options_lib
from covid_tf.server import refusal
from covid_tf.server import services

_log = logging.getLogger(__name__)
# Threads for what must be answered however long the queue is: status, health.
_SPARE_THREADS = 8
_UNLIMITED = -1
_DRAIN_TICK_S = 0.1
_QUIET_TICKS = 3


class Server:
  """A started server.

  Attributes:
    addresses: where it listens, with real ports.
  """

  def __init__(self, options: options_lib.ServerOptions):
    """Loads the models, then listens: who can connect finds them served.

    Raises:
      errors.UsageError: a file or flag is wrong.
      errors.ModelError: a model cannot be loaded, or the port is taken.
    """
    self._options = options
    self._stopping = threading.Event()
    self._socket = None
    secure = listening.credentials(options.ssl_config_file)
    config = model_config.configuration(options)
    self._manager = manager_lib.ModelManager(manager_lib.Options(
        options.poll_s, options.load_retries, options.retry_interval_s,
        options.allow_labels_for_unavailable, options.self_check))
    self._services = services.Services(
        self._manager, admission.Admission(options.running, options.waiting),
        options.as_content)
    try:
      self._manager.start(config)
      self._server, self._health = self._make_server()
      self.addresses = self._listen(secure)
    except refusal.Refusal as error:
      self._manager.close()
      raise errors.ModelError(f'Failed to start server. Error: {error}') from error
    except BaseException:
      self._manager.close()
      raise
    if options.model_config_file and options.config_poll_s > 0:
      threading.Thread(
          target=self._poll_config, name='config-poll', daemon=True).start()

  def models(self) -> list[tuple[str, int]]:
    """(name, version) of what answers now."""
    return self._manager.registry.available()

  def stop(self) -> None:
    """Takes no new requests, lets the running ones end, frees the models."""
    self._stopping.set()
    if self._socket is not None:
      listening.withdraw_socket(self._options.socket_path, self._socket)
    stopped = self._server.stop(self._options.drain_s)
    # After it: who is told NOT_SERVING finds that nothing more is taken.
    self._health.enter_graceful_shutdown()
    quiet = 0
    while not stopped.wait(_DRAIN_TICK_S):
      # More than once: a call that came last may not have reached its handler yet.
      quiet = quiet + 1 if self._services.is_idle() else 0
      if quiet == _QUIET_TICKS:
        # What is left are watchers of the health, who would stay to the end.
        self._server.stop(0).wait()
    self._manager.close()

  def _make_server(self):
    threads = self._options.running + self._options.waiting + _SPARE_THREADS
    settings = {
        'grpc.max_receive_message_length': _UNLIMITED,
        'grpc.max_send_message_length': _UNLIMITED,
        # Two servers on one port would share the clients without a word.
        'grpc.so_reuseport': 0,
        **dict(self._options.channel_arguments),
    }
    server = grpc.server(
        futures.ThreadPoolExecutor(threads), options=list(settings.items()))
    server.add_generic_rpc_handlers(self._services.handlers())
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    for service in (protocol.PREDICTION_SERVICE, protocol.MODEL_SERVICE):
      # Probes in use name them with and without their package.
      for name in ('', service, service.rpartition('.')[2]):
        servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    return server, servicer

  def _listen(self, secure) -> list[str]:
    options = self._options
    addresses = listening.listen(self._server, options.host, options.port, secure)
    if options.socket_path is None:
      self._server.start()
      return addresses
    hidden = listening.listen_on_socket(self._server, options.socket_path, secure)
    self._server.start()
    self._socket = listening.publish_socket(hidden, options.socket_path)
    return [*addresses, f'unix:{options.socket_path}']

  def _poll_config(self) -> None:
    while not self._stopping.wait(self._options.config_poll_s):
      try:
        config = model_config.configuration(self._options)
        # Also what was set by a call meanwhile: the file has the last word.
        if config != self._manager.registry.config:
          # Without waiting for new models: one whose folder is misspelled would keep
          # the corrected file from being read.
          self._manager.reload(config, lambda: False)
      except (errors.UsageError, refusal.Refusal) as error:
        _log.warning('the configuration stays as it was: %s', error)
