"""What a training of one network consists of: the parts that a loop puts together."""

from collections.abc import Callable, Sequence
import dataclasses

from covid_tf.training import augmentation


@dataclasses.dataclass(frozen=True)
class Task:
  """One network's training. Tests train tiny networks with tasks of their own.

  Attributes:
    build: input size -> keras.Model.
    served: model -> the network inside that is saved and exported.
    freeze: model -> None; fixes the pretrained backbone for a 'frozen' stage.
    objective: (model, stage) -> function from (images, labels) to the loss, the mean
      over the batch.
    example: (record, seed, Augmentation, size) -> (image, labels) of one slice.
    measure: (served network, batches) -> figures by name; the first is the one that
      early stopping and the best weights go by, and more of it is better.
    picture: (served network, images, labels) -> float32 [N, rows, columns, 3] in
      [0, 1], to be looked at.
    kinds: the stages it knows.
    augmentation: how far training slices are changed.
    labelled_only: whether slices of unknown label are left out.
    least_size: rows and columns that the network needs.
    size_step: what rows and columns must be a multiple of.
  """

  build: Callable
  served: Callable
  freeze: Callable
  objective: Callable
  example: Callable
  measure: Callable
  picture: Callable
  kinds: Sequence[str]
  augmentation: augmentation.Augmentation
  labelled_only: bool
  least_size: int = 1
  size_step: int = 1
