"""The models as a worker process has them: opened once, one study at a time.

Each study asks its own server, or the next one while its own is away.
"""

import atexit
from collections.abc import Callable, Sequence
import contextlib
import functools
import hashlib
import threading
import time
from typing import TypeVar

from covid_tf import errors
from covid_tf.predictors import interface

# Opens the models of a server, or those of this process for ''. Hashable, so that
# a process opens each once.
OpenModels = Callable[[str], contextlib.AbstractContextManager[interface.Models]]

# One study of a process has the models at a time: two would share the same cores.
_MODELS_TURN = threading.Lock()

# A server that is away keeps a study waiting for a minute; each worker looks
# whether it is back this often.
_AWAY_S = 300.0
# Servers that one study may wait for.
_MOST_TRIED = 2

_Answer = TypeVar('_Answer')


class Servers:
  """The servers that may answer a study, and which of them are away for now."""

  def __init__(self, addresses: Sequence[str]):
    """Begins with all of them present.

    Args:
      addresses: of servers with the same models.
    """
    self._addresses = tuple(addresses)
    self._away_until: dict[str, float] = {}

  def answered(self, key: str, ask: Callable[[str], _Answer]) -> _Answer:
    """Asks the server of a study, or the next one if that one fails.

    One server gives all answers of a study: another one starts it anew. A server is
    passed over for a while once another one could do what it could not; a study that
    fails everywhere is no fault of the servers.

    Args:
      key: of the study; chooses its own server, always the same.
      ask: address to the answers for the whole study.

    Returns:
      What `ask` returned.

    Raises:
      errors.ModelError: of the last server that was asked.
    """
    digest = hashlib.sha256(key.encode()).digest()
    own = int.from_bytes(digest[:8], 'big') % len(self._addresses)
    order = [*self._addresses[own:], *self._addresses[:own]]
    now = time.monotonic()
    present = [server for server in order if self._away_until.get(server, 0) <= now]
    *others, last = (present or order)[:_MOST_TRIED]
    failed = []
    for server in others:
      try:
        return ask(server)
      except errors.ModelError:
        failed.append(server)
    answer = ask(last)
    for server in failed:
      self._away_until[server] = time.monotonic() + _AWAY_S
    return answer


def answered(
  open_models: OpenModels,
  servers: tuple[str, ...],
  key: str,
  ask: Callable[[interface.Models], _Answer],
) -> tuple[_Answer, float]:
  """Asks the models of this process about a study, once it is its turn.

  Args:
    open_models: opens the models, for the first study that asks.
    servers: addresses, for `open_models`.
    key: of the study.
    ask: models to the answers for the whole study.

  Returns:
    What `ask` returned, and the seconds spent waiting for the turn.

  Raises:
    errors.ModelError: no server that was asked can answer.
  """
  arrival_s = time.monotonic()
  with _MODELS_TURN:
    waited_s = time.monotonic() - arrival_s
    answer = _servers(servers).answered(
      key, lambda server: ask(_models(open_models, server))
    )
  return answer, waited_s


@functools.cache
def _servers(addresses: tuple[str, ...]) -> Servers:
  """The servers as this process knows them; a scorer may be sent anew per study."""
  return Servers(addresses)


@functools.cache
def _models(open_models: OpenModels, server: str) -> interface.Models:
  """Models of this process, opened by the first study that asks (in its turn)."""
  kept = contextlib.ExitStack()
  models = kept.enter_context(open_models(server))
  # They live as long as the worker does. So must their context: where it is a
  # generator, forgetting it would close the models.
  atexit.register(kept.close)
  return models
