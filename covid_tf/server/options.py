"""How to serve, and TF Serving's flags for it."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class ServerOptions:
  """Everything that `serve` needs to know.

  Attributes:
    models: folder with NAME/VERSION/saved_model.pb of every model, or None.
    model_name: name of a single model.
    model_base_path: folder of its versions, or None.
    model_config_file: text file with a ModelServerConfig, or None.
    config_poll_s: seconds between two readings of it; 0: read once.
    poll_s: seconds between two looks for versions; 0: look once.
    load_retries: how often a failed load is tried again.
    retry_interval_s: seconds between the tries.
    allow_labels_for_unavailable: new labels may name versions not loaded yet.
    self_check: a version must give its own reference answers to become available.
    host: address to listen on, or None for the loopback ones.
    port: TCP port; 0 for a free one.
    socket_path: Unix socket to listen on too, or None.
    ssl_config_file: text file with an SSLConfig, or None for plain text.
    channel_arguments: gRPC's own settings.
    as_content: answer with `tensor_content` instead of the typed fields.
    running: Predict requests that run at once.
    waiting: Predict requests that may wait; more are refused.
    drain_s: seconds that running requests get when the server is stopped.
  """

  models: str | None = None
  model_name: str = 'default'
  model_base_path: str | None = None
  model_config_file: str | None = None
  config_poll_s: float = 0.0
  poll_s: float = 1.0
  load_retries: int = 5
  retry_interval_s: float = 60.0
  allow_labels_for_unavailable: bool = False
  self_check: bool = True
  host: str | None = None
  port: int = 8500
  socket_path: str | None = None
  ssl_config_file: str | None = None
  channel_arguments: tuple[tuple[str, int | str], ...] = ()
  as_content: bool = False
  running: int = 2
  waiting: int = 128
  drain_s: float = 30.0
