// What the page carries of the CT, and where its voxels lie.
const study = JSON.parse(document.getElementById('study').textContent);
const shape = study.shape;
const strides = [shape[1] * shape[2], shape[2], 1];
const count = shape[0] * strides[0];
const hu = new Int16Array(count).fill(-1024);
const heat = new Uint8Array(count);
const lungs = new Uint8Array(count);
const LEVELS = 255;  // Of the map.

function unpacked(text) {
  const binary = atob(text.trim());
  const bytes = new Uint8Array(binary.length);
  for (let at = 0; at < bytes.length; at++) bytes[at] = binary.charCodeAt(at);
  const stream = new Blob([bytes]).stream().pipeThrough(
      new DecompressionStream('deflate'));
  return new Response(stream).arrayBuffer();
}

// Adds to each pixel what its neighbours to the left and above predict.
function restore(bytes, first, slices) {
  const [, rows, columns] = shape;
  const size = slices * strides[0];
  let from = 0;
  for (let slice = first; slice < first + slices; slice++) {
    let at = slice * strides[0];
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++, at++, from++) {
        const packed = bytes[from] | bytes[from + size] << 8;
        let value = packed >> 1 ^ -(packed & 1);
        if (row && column) {
          value += hu[at - 1] + hu[at - columns] >> 1;
        } else if (column) {
          value += hu[at - 1];
        } else if (row) {
          value += hu[at - columns];
        }
        hu[at] = value;
      }
    }
  }
  const start = first * strides[0];
  heat.set(bytes.subarray(2 * size, 3 * size), start);
  lungs.set(bytes.subarray(3 * size, 4 * size), start);
}

// The part that holds the first slice comes first; then its neighbours.
async function load(slice, whenSome) {
  const parts = [...document.querySelectorAll('script.part')];
  const wanted = Math.floor(slice / study.partSlices);
  const order = parts.map((_, number) => number).sort(
      (a, b) => Math.abs(a - wanted) - Math.abs(b - wanted));
  for (const number of order) {
    const first = number * study.partSlices;
    const slices = Math.min(study.partSlices, shape[0] - first);
    restore(new Uint8Array(await unpacked(parts[number].textContent)), first, slices);
    parts[number].remove();  // Its text is no longer needed.
    await whenSome((number + 1) / parts.length);
  }
}

function indexOf(voxel) {
  return voxel[0] * strides[0] + voxel[1] * strides[1] + voxel[2];
}

// LPS millimetres of a place in voxels.
function millimetres(voxel) {
  return study.affine.slice(0, 3).map(
      (row) => row[0] * voxel[0] + row[1] * voxel[1] + row[2] * voxel[2] + row[3]);
}

// The CT's own indices along an axis: [first, last] of a voxel of the viewer.
function ctSpan(axis, at) {
  const first = study.start[axis] + at * study.factors[axis];
  return [first, Math.min(first + study.factors[axis], study.stop[axis]) - 1];
}

function viewerSlice(ctSlice) {
  const at = Math.floor((ctSlice - study.start[0]) / study.factors[0]);
  return Math.max(0, Math.min(shape[0] - 1, at));
}

function isCounted(level, threshold) {
  return level > LEVELS * threshold + 1e-6;
}

// Where the map is highest on a slice; where no map is, the middle of its lungs.
function placeOn(slice) {
  const start = slice * strides[0];
  let best = 0, at = -1, rows = 0, columns = 0, found = 0;
  for (let pixel = 0; pixel < strides[0]; pixel++) {
    if (heat[start + pixel] > best) {
      best = heat[start + pixel];
      at = pixel;
    }
    if (lungs[start + pixel]) {
      rows += Math.floor(pixel / shape[2]);
      columns += pixel % shape[2];
      found++;
    }
  }
  if (at >= 0) return [slice, Math.floor(at / shape[2]), at % shape[2]];
  if (found) return [slice, Math.round(rows / found), Math.round(columns / found)];
  return null;
}
