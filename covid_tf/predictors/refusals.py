"""What a failed call means, and whether asking again can help."""

import enum
import re

import grpc

from covid_tf import errors

_TEXT_LIMIT = 300  # Of a server's own words in our one line.

# A queue that is full is not memory that is short: smaller batches would only
# make it fuller.
_BUSY = re.compile(r'queue|concurrent rpc|too many|rate limit', re.IGNORECASE)
_BROKEN_STREAM = re.compile(
    r'RST_STREAM|stream removed|socket closed|connection reset|goaway', re.IGNORECASE)
_UNTRUSTED = re.compile(
    r'certificate|ssl_error|tsi_protocol_failure|verification|peer name', re.IGNORECASE)


class Verdict(enum.Enum):
  """What to do about a failed call. Predict changes nothing: repeating is safe."""

  RETRY = 'the server is away or the connection broke: ask again'
  BUSY = 'the server has too much to do: ask again later'
  HALVE = 'the batch is too much for the server: ask for half'
  GONE = 'the version that the study is pinned to is no longer served'
  FATAL = 'asking again gives the same'


def verdict(error: grpc.RpcError) -> Verdict:
  """Judges a failed call by its code, and by its text where codes are shared."""
  code, text = error.code(), error.details() or ''
  if code == grpc.StatusCode.UNAVAILABLE:
    return Verdict.FATAL if _UNTRUSTED.search(text) else Verdict.RETRY
  if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
    return Verdict.BUSY if _BUSY.search(text) else Verdict.HALVE
  if code == grpc.StatusCode.NOT_FOUND and 'Specific(' in text:
    return Verdict.GONE
  if code == grpc.StatusCode.CANCELLED:
    return Verdict.RETRY  # Not by us, who still wait: by a server that is stopped.
  if _BROKEN_STREAM.search(text) and code in (
      grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
    return Verdict.RETRY
  return Verdict.FATAL


_REMEDIES = {
    grpc.StatusCode.UNAVAILABLE:
        'required a running model server; start one (covid-tf serve), correct the '
        'address, or use TLS if the server does',
    grpc.StatusCode.DEADLINE_EXCEEDED:
        'required an answer within the time limit; raise timeout_s, lower '
        'batch_bytes or give the server more processors',
    grpc.StatusCode.RESOURCE_EXHAUSTED:
        'the server had no room for the request for too long; try later or give it '
        'more memory',
    grpc.StatusCode.NOT_FOUND:
        'required a server of the models lungs and classifier; check its model '
        'names and versions',
    grpc.StatusCode.UNIMPLEMENTED:
        "required TF Serving's gRPC port; 8500 is usual, 8501 is its REST port",
    grpc.StatusCode.UNAUTHENTICATED: 'the server asks for other credentials',
    grpc.StatusCode.PERMISSION_DENIED: 'the server refuses these credentials',
    grpc.StatusCode.FAILED_PRECONDITION:
        'required the signatures of the contract; serve models exported by covid-tf',
    grpc.StatusCode.INVALID_ARGUMENT:
        'the server refuses the request; serve models exported by covid-tf of this '
        'version',
}


def explain(source: str, what: str, error: grpc.RpcError) -> errors.ModelError:
  """Turns a failed call into the one line that its reader can act upon.

  Args:
    source: the server's address.
    what: what was asked of it.
    error: gRPC's refusal.

  Returns:
    An error with the code, the server's own words (cut) and a remedy.
  """
  code = error.code()
  text = ' '.join((error.details() or '').split())[:_TEXT_LIMIT]
  remedy = _REMEDIES.get(code, 'look into the log of the server')
  if code == grpc.StatusCode.UNAVAILABLE and _UNTRUSTED.search(text):
    remedy = ('the two sides do not trust each other; check the CA, the certificates '
              'and the name that the server answers to')
  return errors.ModelError(f'{source}: {what}: {code.name} ({text}): {remedy}.')


def gone(source: str, error: grpc.RpcError) -> errors.ModelVersionChangedError:
  """The error for a pinned version that is no longer served."""
  text = ' '.join((error.details() or '').split())[:_TEXT_LIMIT]
  return errors.ModelVersionChangedError(
      f'{source}: the model version that began this study is served no longer '
      f'({text}): score the study again.')
