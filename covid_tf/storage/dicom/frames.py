"""Pixels of objects of many frames, put in slice by slice.

highdicom takes all frames as one array and needs several times its size on the way. So
objects are made with frames of one pixel, which gives every element but three, and the
pixels follow. Which slice a frame shows is read from the frame itself.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pydicom
from pydicom import encaps
from pydicom import uid
from pydicom.pixels import encoders

from covid_tf.storage.dicom import source as source_lib

# Gives one frame: (segment number, or None; index of the slice) -> [row, column].
Frame = Callable[[int | None, int], np.ndarray]


def stand_ins(source: source_lib.SourceSeries) -> list[pydicom.Dataset]:
  """Headers of the source's slices with images of one pixel.

  A frame of a file stands as a file of its own, until `refer`: highdicom takes one
  file of many frames or many files, and all frames or none.
  """
  headers = []
  for index, header in enumerate(source.headers):
    small = pydicom.Dataset()
    small.update(header)
    for keyword in ('Rows', 'Columns'):  # New elements: the others are shared.
      small.add_new(keyword, 'US', 1)
    if source.is_multi_frame:
      small.add_new('SOPClassUID', 'UI', uid.CTImageStorage)
      small.add_new('SOPInstanceUID', 'UI', _stand_in_uid(source, index))
    headers.append(small)
  return headers


def _stand_in_uid(source: source_lib.SourceSeries, index: int) -> str:
  if source.is_multi_frame:
    return f'2.25.{index + 1}'
  return str(source.headers[index].SOPInstanceUID)


def refer(made: pydicom.Dataset, source: source_lib.SourceSeries) -> None:
  """Refers to frames of files where the stand-ins were; before UIDs are derived."""
  if not source.is_multi_frame:
    return
  for item, (_, index) in zip(_source_images(made), _shown(made, source)):
    (reference,) = source.references([index])
    item.update(reference)
  made.SourceImageSequence = source.references()
  (series,) = made.ReferencedSeriesSequence
  series.ReferencedInstanceSequence = source.references()
  for item in series.ReferencedInstanceSequence:  # Of whole instances.
    if 'ReferencedFrameNumber' in item:
      del item.ReferencedFrameNumber


def _source_images(made: pydicom.Dataset) -> Iterator[pydicom.Dataset]:
  """Of each frame the item that refers to the slice that it shows."""
  for groups in made.PerFrameFunctionalGroupsSequence:
    (derivation,) = groups.DerivationImageSequence
    (item,) = derivation.SourceImageSequence
    yield item


def sort(made: pydicom.Dataset) -> None:
  """Sorts frames by segment, and by place along row direction x column direction.

  highdicom sorts the other way round. Readers that take each frame by its own place do
  not mind; dcmqi's reader of maps stacks them as they come, and so turned them over.
  """
  shared = made.SharedFunctionalGroupsSequence[0]
  cosines = np.reshape(
    shared.PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3)
  ).astype(float)
  normal = np.cross(*cosines)

  def place(groups: pydicom.Dataset) -> tuple[int, float]:
    position = groups.PlanePositionSequence[0].ImagePositionPatient
    return _segment(groups) or 0, float(np.dot(normal, np.array(position, float)))

  ordered = sorted(made.PerFrameFunctionalGroupsSequence, key=place)
  planes = int(made.NumberOfFrames) // max(_segment(ordered[-1]) or 1, 1)
  for number, groups in enumerate(ordered):
    (content,) = groups.FrameContentSequence
    *others, _ = np.atleast_1d(content.DimensionIndexValues).tolist()
    content.DimensionIndexValues = [*others, number % planes + 1]
  made.PerFrameFunctionalGroupsSequence = ordered


def _segment(groups: pydicom.Dataset) -> int | None:
  """Number of the segment that a frame belongs to; None of a map."""
  items: Iterable[pydicom.Dataset] = groups.get('SegmentIdentificationSequence', ())
  return next((int(item.ReferencedSegmentNumber) for item in items), None)


def put_bits(
  made: pydicom.Dataset, source: source_lib.SourceSeries, frame: Frame
) -> None:
  """Fills an object of one bit a pixel; the frames are bool.

  Bits of all frames follow each other without a gap (PS3.5 8.1.1).
  """
  shown = _shown(made, source)
  packed = bytearray()
  # Eight frames end at a byte, whatever their size.
  for start in range(0, len(shown), 8):
    block = np.concatenate(
      [frame(*which).ravel() for which in shown[start : start + 8]]
    )
    packed += np.packbits(block, bitorder='little').tobytes()
  _set_size(made, source)
  made.PixelData = bytes(packed) + bytes(len(packed) % 2)
  made['PixelData'].VR = 'OB'


def put_rle(
  made: pydicom.Dataset, source: source_lib.SourceSeries, frame: Frame
) -> None:
  """Fills an object of 16 bits a pixel, packed by RLE; the frames are uint16.

  The encoder is GDCM's, which takes a tenth of the time of pydicom's own.
  """
  _set_size(made, source)
  encoder = encoders.RLELosslessEncoder
  options = {
    'rows': made.Rows,
    'columns': made.Columns,
    'samples_per_pixel': 1,
    'bits_allocated': 16,
    'bits_stored': 16,
    'pixel_representation': 0,
    'photometric_interpretation': 'MONOCHROME2',
    'number_of_frames': 1,
    'encoding_plugin': 'gdcm',
  }
  packed = [
    encoder.encode(frame(*which).astype('<u2', copy=False).tobytes(), **options)
    for which in _shown(made, source)
  ]
  made.file_meta.TransferSyntaxUID = uid.RLELossless
  made.PixelData = encaps.encapsulate(packed)
  made['PixelData'].VR = 'OB'
  made['PixelData'].is_undefined_length = True


def put_float(
  made: pydicom.Dataset, source: source_lib.SourceSeries, frame: Frame
) -> None:
  """Fills an object of float32 pixels."""
  _set_size(made, source)
  shown = _shown(made, source)
  pixels = np.empty((len(shown), made.Rows, made.Columns), '<f4')
  for target, which in zip(pixels, shown):
    target[...] = frame(*which)
  made.FloatPixelData = pixels.tobytes()


def _set_size(made: pydicom.Dataset, source: source_lib.SourceSeries) -> None:
  _, made.Rows, made.Columns = source.shape


def _shown(
  made: pydicom.Dataset, source: source_lib.SourceSeries
) -> Sequence[tuple[int | None, int]]:
  """(segment number, index of the slice) that each frame says it shows."""
  place = {_stand_in_uid(source, at): at for at in range(len(source.headers))}
  return [
    (_segment(groups), place[item.ReferencedSOPInstanceUID])
    for groups, item in zip(made.PerFrameFunctionalGroupsSequence, _source_images(made))
  ]
