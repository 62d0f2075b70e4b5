"""The list of models to serve: from flags, a folder or a text file."""

import dataclasses
import pathlib

from google.protobuf import text_format

from covid_tf import errors
from covid_tf.predictors import protocol
from covid_tf.sessions import refusal

# How to serve, and TF Serving's flags for it.


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


_PLATFORM = 'tensorflow'
_TENSORFLOW_TYPE = 1  # The older ModelType enum's way to say the same.


def read_text_file(path: str, message_type):
  """Parses an operator's text file.

  Args:
    path: the file.
    message_type: its message class, of `covid_tf.predictors.protocol`.

  Returns:
    The message.

  Raises:
    errors.UsageError: it cannot be read or is no such message.
  """
  name = message_type.DESCRIPTOR.full_name
  try:
    text = pathlib.Path(path).read_text(encoding='utf-8')
    return text_format.Parse(text, message_type())
  except (OSError, UnicodeDecodeError) as error:
    raise errors.UsageError(
      f'{path}: required a text file with a {name}, found: {error}.'
    ) from error
  except text_format.ParseError as error:
    raise errors.UsageError(
      f'{path}: Error parsing text-format {name}: {error}; correct the file.'
    ) from error


def model_configuration(options: ServerOptions):
  """Reads or makes the ModelServerConfig that the options ask for.

  Raises:
    errors.UsageError: the file or folder that they name is none.
  """
  if options.model_config_file:
    return read_text_file(options.model_config_file, protocol.ModelServerConfig)
  if options.models:
    return models_in_folder(options.models)
  assert options.model_base_path is not None  # The command requires one of the three.
  return single_model(options.model_name, options.model_base_path)


def single_model(name: str, base_path: str):
  """A ModelServerConfig of one model."""
  config = protocol.ModelServerConfig()
  config.model_config_list.config.add(
    name=name, base_path=base_path, model_platform=_PLATFORM
  )
  return config


def models_in_folder(folder: str):
  """A ModelServerConfig with every sub-folder of `folder` that holds versions.

  Args:
    folder: DIR of DIR/lungs/1, DIR/classifier/1.

  Raises:
    errors.UsageError: there is no such folder, or no model in it.
  """
  root = pathlib.Path(folder)
  config = protocol.ModelServerConfig()
  if root.is_dir():
    for path in sorted(root.iterdir()):
      if path.is_dir() and any(
        child.name.isdigit() and child.is_dir() for child in path.iterdir()
      ):
        config.model_config_list.config.add(
          name=path.name, base_path=str(path.absolute()), model_platform=_PLATFORM
        )
  if not config.model_config_list.config:
    raise errors.UsageError(
      f'--models {folder}: required a folder with NAME/VERSION/saved_model.pb, '
      f'found {"none in it" if root.is_dir() else "no folder"}; '
      'export models there first.'
    )
  return config


def check_configuration(config) -> None:
  """Refuses a list of models as TF Serving does.

  Args:
    config: a ModelServerConfig.

  Raises:
    refusal.Refusal: it is no list, or an entry is wrong.
  """
  if config.WhichOneof('config') != 'model_config_list':
    raise refusal.invalid_argument(
      'ServerModelConfig type not supported by HandleReloadConfigRequest.'
      ' Only ModelConfigList is currently supported'
    )
  names = set()
  for model in config.model_config_list.config:
    if model.name in names:
      raise refusal.invalid_argument(
        f'Illegal to list model {model.name} multiple times in config list'
      )
    names.add(model.name)
    if not pathlib.PurePath(model.base_path).is_absolute():
      raise refusal.invalid_argument(
        f'Expected model {model.name} to have an absolute path or URI; got '
        f'base_path()={model.base_path}'
      )
    if not model.model_platform and model.model_type != _TENSORFLOW_TYPE:
      raise refusal.invalid_argument(
        'Illegal setting neither ModelServerConfig::model_type (deprecated) nor '
        'ModelServerConfig::model_platform.'
      )
    if model.model_platform and model.model_type:
      raise refusal.invalid_argument(
        'Illegal setting both ModelServerConfig::model_type (deprecated) and '
        'ModelServerConfig::model_platform.'
      )
    if model.model_platform and model.model_platform != _PLATFORM:
      raise refusal.invalid_argument(
        f'Model {model.name} requests unsupported platform {model.model_platform}'
      )
