"""Ports of loopback that a test may open later, and no other test meanwhile."""

import random
import socket

# Below those that systems give to outgoing connections (from 16000 or 32768 on), which
# would take a port between its choice and its use.
_RANGE = range(10_000, 16_000)
_claims: list[socket.socket] = []  # Open until this process ends.


def free_port() -> int:
  """A TCP port of loopback that nobody listens at, for this process alone.

  Tests run several at a time on one network. A UDP socket of the same number, which is
  bound and never used, is the claim on a port: it leaves TCP free for whatever the test
  starts there, also again and again, and keeps out every other test that asks here.
  """
  ports = list(_RANGE)
  random.SystemRandom().shuffle(ports)
  for port in ports:
    claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
      claim.bind(('127.0.0.1', port))
      with socket.socket() as found:
        found.bind(('', port))  # On any address: some listen on all of them.
    except OSError:
      claim.close()
      continue
    _claims.append(claim)
    return port
  raise OSError(f'no free port from {_RANGE.start} to {_RANGE.stop - 1}')
