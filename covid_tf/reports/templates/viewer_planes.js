// Three planes, painted on canvases through a window of HU.
const state = {
  at: shape.map((length) => length >> 1),
  centre: shape.map((length) => (length - 1) / 2),
  zoom: 1, center: study.windows[0][0], width: study.windows[0][1],
  opacity: 0.5, threshold: study.threshold,
  map: true, lungs: true, crosshair: true, smooth: true,
};
const greys = new Uint32Array(65536);  // Colour of each HU, modulo 65536.
const planes = study.planes.map((plane) => ({
  ...plane,
  canvas: document.getElementById(plane.name),
  rows: shape[plane.down.axis], columns: shape[plane.across.axis],
  picture: document.createElement('canvas'),
  overlay: document.createElement('canvas'),
}));

function setWindow(center, width) {
  state.center = center;
  state.width = Math.max(1, width);
  const low = state.center - state.width / 2;
  for (let value = -32768; value < 32768; value++) {
    const grey = Math.max(0, Math.min(255, Math.round((value - low) * 255 / state.width)));
    greys[value & 65535] = (255 << 24 | grey << 16 | grey << 8 | grey) >>> 0;
  }
}

function colours() {
  const table = new Uint32Array(256);
  const alpha = Math.round(state.opacity * 255);
  for (let level = 0; level < 256; level++) {
    if (!isCounted(level, state.threshold)) continue;
    const [red, green, blue] = study.colours.slice(3 * level, 3 * level + 3);
    table[level] = (alpha << 24 | blue << 16 | green << 8 | red) >>> 0;
  }
  return table;
}

// Calls visit(index of voxel, number of pixel) along the plane's rows.
function walk(plane, visit) {
  const down = strides[plane.down.axis] * (plane.down.reversed ? -1 : 1);
  const across = strides[plane.across.axis] * (plane.across.reversed ? -1 : 1);
  let line = state.at[plane.fixed] * strides[plane.fixed];
  if (plane.down.reversed) line += (plane.rows - 1) * strides[plane.down.axis];
  if (plane.across.reversed) line += (plane.columns - 1) * strides[plane.across.axis];
  for (let row = 0, pixel = 0; row < plane.rows; row++, line += down) {
    for (let column = 0, at = line; column < plane.columns; column++, at += across) {
      visit(at, pixel++);
    }
  }
}

function fill(canvas, plane, pixels) {
  canvas.width = plane.columns;
  canvas.height = plane.rows;
  const bytes = new Uint8ClampedArray(pixels.buffer);
  canvas.getContext('2d').putImageData(
      new ImageData(bytes, plane.columns, plane.rows), 0, 0);
}

// Where the plane lies in its canvas, in CSS pixels.
function placing(plane) {
  const width = plane.canvas.clientWidth, height = plane.canvas.clientHeight;
  const perMm = state.zoom * Math.min(
      width / (plane.columns * plane.across.step), height / (plane.rows * plane.down.step));
  const [x, y] = [plane.across, plane.down].map((side) => {
    const at = state.centre[side.axis];
    return (side.reversed ? shape[side.axis] - 1 - at : at) + 0.5;
  });
  const across = perMm * plane.across.step, down = perMm * plane.down.step;
  return {width, height, perMm, across, down,
          left: width / 2 - x * across, top: height / 2 - y * down};
}

// Pixel of the plane (may be beyond its edge) at a place in the canvas.
function voxelAt(plane, x, y) {
  const place = placing(plane);
  const voxel = [...state.at];
  for (const [side, pixel] of [[plane.across, (x - place.left) / place.across],
                               [plane.down, (y - place.top) / place.down]]) {
    const at = Math.floor(pixel);
    voxel[side.axis] = side.reversed ? shape[side.axis] - 1 - at : at;
  }
  return voxel;
}

function isInside(voxel) {
  return voxel.every((at, axis) => at >= 0 && at < shape[axis]);
}

// Strokes the border of what `inside` says, along the edges of pixels.
function outline(context, plane, place, inside, colour) {
  const set = new Uint8Array(plane.rows * plane.columns);
  walk(plane, (at, pixel) => { set[pixel] = inside(at) ? 1 : 0; });
  const x = (column) => place.left + column * place.across;
  const y = (row) => place.top + row * place.down;
  context.beginPath();
  for (let row = 0, pixel = 0; row < plane.rows; row++) {
    for (let column = 0; column < plane.columns; column++, pixel++) {
      if (!set[pixel]) continue;
      if (!row || !set[pixel - plane.columns]) {
        context.moveTo(x(column), y(row));
        context.lineTo(x(column + 1), y(row));
      }
      if (row === plane.rows - 1 || !set[pixel + plane.columns]) {
        context.moveTo(x(column), y(row + 1));
        context.lineTo(x(column + 1), y(row + 1));
      }
      if (!column || !set[pixel - 1]) {
        context.moveTo(x(column), y(row));
        context.lineTo(x(column), y(row + 1));
      }
      if (column === plane.columns - 1 || !set[pixel + 1]) {
        context.moveTo(x(column + 1), y(row));
        context.lineTo(x(column + 1), y(row + 1));
      }
    }
  }
  context.strokeStyle = colour;
  context.lineWidth = 1.4;
  context.stroke();
}

function crosshair(context, plane, place) {
  const [x, y] = [[plane.across, place.left, place.across],
                  [plane.down, place.top, place.down]].map(([side, start, step]) => {
    const at = state.at[side.axis];
    return start + ((side.reversed ? shape[side.axis] - 1 - at : at) + 0.5) * step;
  });
  const gap = 9;
  context.beginPath();
  for (const [x0, y0, x1, y1] of [[0, y, x - gap, y], [x + gap, y, place.width, y],
                                  [x, 0, x, y - gap], [x, y + gap, x, place.height]]) {
    context.moveTo(x0, y0);
    context.lineTo(x1, y1);
  }
  context.strokeStyle = '#ffe14d';
  context.lineWidth = 1;
  context.stroke();
}

function ruler(context, place) {
  const length = 50 * place.perMm;
  for (const [colour, width] of [['#000', 4], ['#fff', 2]]) {
    context.beginPath();
    context.moveTo(12, place.height - 12);
    context.lineTo(12 + length, place.height - 12);
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.stroke();
  }
  context.font = '12px sans-serif';
  context.strokeStyle = '#000';
  context.lineWidth = 3;
  context.strokeText('5 cm', 12, place.height - 18);
  context.fillStyle = '#fff';
  context.fillText('5 cm', 12, place.height - 18);
}

function paint(plane) {
  const scale = window.devicePixelRatio || 1;
  const place = placing(plane);
  if (!place.width) return;
  plane.canvas.width = Math.round(place.width * scale);
  plane.canvas.height = Math.round(place.height * scale);
  const context = plane.canvas.getContext('2d');
  context.scale(scale, scale);
  const pixels = new Uint32Array(plane.rows * plane.columns);
  walk(plane, (at, pixel) => { pixels[pixel] = greys[hu[at] & 65535]; });
  fill(plane.picture, plane, pixels);
  context.imageSmoothingEnabled = state.smooth;
  const area = [place.left, place.top,
                plane.columns * place.across, plane.rows * place.down];
  context.drawImage(plane.picture, ...area);
  if (state.map) {
    const table = colours();
    walk(plane, (at, pixel) => { pixels[pixel] = table[heat[at]]; });
    fill(plane.overlay, plane, pixels);
    context.imageSmoothingEnabled = false;
    context.drawImage(plane.overlay, ...area);
    outline(context, plane, place, (at) => isCounted(heat[at], state.threshold), '#fff');
  }
  if (state.lungs) outline(context, plane, place, (at) => lungs[at], '#58c4f5');
  if (state.crosshair) crosshair(context, plane, place);
  ruler(context, place);
}
