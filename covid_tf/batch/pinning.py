"""Which server a study asks: its own, or the next one while its own is away."""

from collections.abc import Callable, Sequence
import hashlib
import time
from typing import TypeVar

from covid_tf import errors

# A server that is away keeps a study waiting for a minute; each worker looks
# whether it is back this often.
_AWAY_S = 300.0
# Servers that one study may wait for.
_MOST_TRIED = 2

_Answer = TypeVar('_Answer')

_away_until: dict[str, float] = {}  # Of this process, by address.


def answered(
    servers: Sequence[str], key: str, ask: Callable[[str], _Answer]) -> _Answer:
  """Asks the server of a study, or the next one if that one fails.

  One server gives all answers of a study: another one starts it anew. A server is
  passed over for a while once another one could do what it could not; a study that
  fails everywhere says nothing of the servers.

  Args:
    servers: addresses of servers with the same models.
    key: of the study; chooses its own server, always the same.
    ask: address to the answers for the whole study.

  Returns:
    What `ask` returned.

  Raises:
    errors.ModelError: of the last server that was asked.
  """
  digest = hashlib.sha256(key.encode()).digest()
  own = int.from_bytes(digest[:8], 'big') % len(servers)
  order = [*servers[own:], *servers[:own]]
  now = time.monotonic()
  present = [server for server in order if _away_until.get(server, 0) <= now]
  *others, last = (present or order)[:_MOST_TRIED]
  failed = []
  for server in others:
    try:
      return ask(server)
    except errors.ModelError:
      failed.append(server)
  answer = ask(last)
  for server in failed:
    _away_until[server] = time.monotonic() + _AWAY_S
  return answer
