"""One slice of a phantom on its grid: coordinates, random fields, distances."""

from covid_tf.datasets.phantom import grid as grid_lib
from covid_tf.datasets.phantom import lungs
from covid_tf.datasets.phantom import mediastinum
from covid_tf.datasets.phantom import shapes

_FIELD_SCALES_MM = {  # Lattice step of each random field.
    'warp_x': 34, 'warp_y': 34, 'shape': 11, 'broad': 9, 'fine': 4.5,
    'reticulum': 5.5, 'blotches': 8, 'patch': 24}


class Fields:
  """The random fields of one phantom on one grid."""

  def __init__(self, case, grid):
    self._case, self._grid, self._fields = case, grid, {}

  def __call__(self, name, index):
    if name not in self._fields:  # Not every phantom needs every field.
      stream = 200 + list(_FIELD_SCALES_MM).index(name)
      self._fields[name] = grid_lib.SmoothField(
          self._case.seed, stream, _FIELD_SCALES_MM[name], self._grid)
    return self._fields[name].on_slice(index)


class Plane:
  """Coordinates, fields and distances of one slice, each [H, W]."""

  def __init__(self, chest, grid, index, fields):
    self.z = float(grid.z[index])
    self.pixel = grid.pixel_mm
    self.thickness = grid.thickness_mm
    self.field = lambda name: fields(name, index)
    # Real organs are no ellipses: coordinates bend by a few millimetres.
    self.x = grid.x + 3.0 * fields('warp_x', index)
    self.y = grid.y + 3.0 * fields('warp_y', index)
    self.polar = shapes.Polar(self.x, self.y)
    self.wall = lungs.pleura_distance(chest, self.z, self.polar)
    self.tubes = mediastinum.near_tubes(chest, self.z, self.x, self.y)
    middle = mediastinum.mediastinum_distance(
        chest, self.z, self.x, self.y, self.tubes)
    self.diaphragm = lungs.diaphragm_height(chest, self.x, self.y)
    self.lung = lungs.lung_distance(
        chest, self.z, self.x, self.y, self.wall, middle, self.diaphragm)
    self.true_x, self.true_y = grid.x, grid.y
