"""A request that is refused, in TF Serving's code and words."""

import grpc

_LONGEST_TEXT = 1024  # Characters; TF Serving truncates its messages there.

UNKNOWN = grpc.StatusCode.UNKNOWN
UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED

# TensorFlow numbers its codes as gRPC does.
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Refusal(Exception):
  """Ends a request with a gRPC status.

  Attributes:
    code: the status.
    text: the message, truncated as TF Serving does.
  """

  def __init__(self, code: grpc.StatusCode | int, text: str):
    """Makes the status; `code` may be TensorFlow's number."""
    if isinstance(code, int):
      code = _CODES.get(code, grpc.StatusCode.UNKNOWN)
    self.code = code
    self.text = text[:_LONGEST_TEXT]
    super().__init__(f'{code.name}: {self.text}')


def invalid_argument(text: str) -> Refusal:
  """INVALID_ARGUMENT with `text`."""
  return Refusal(grpc.StatusCode.INVALID_ARGUMENT, text)


def not_found(text: str) -> Refusal:
  """NOT_FOUND with `text`."""
  return Refusal(grpc.StatusCode.NOT_FOUND, text)


def failed_precondition(text: str) -> Refusal:
  """FAILED_PRECONDITION with `text`."""
  return Refusal(grpc.StatusCode.FAILED_PRECONDITION, text)
