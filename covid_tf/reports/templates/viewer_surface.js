// Lungs and map as surfaces that NiiVue turns.
const GRID_MM = 4;  // The map itself is no finer than 10 mm.
const LUNG_COLOUR = [190, 212, 232, 255], MAP_COLOUR = [255, 122, 40, 255];
let scene = null;
let surfaces = null;

// Blocks of about GRID_MM with a rim of zeros: {values, shape, toVoxel}.
function coarse(source, share) {
  const steps = [0, 1, 2].map((axis) => Math.hypot(
      ...study.affine.slice(0, 3).map((row) => row[axis])));
  const block = steps.map((step) => Math.max(1, Math.round(GRID_MM / step)));
  const size = shape.map((length, axis) => Math.ceil(length / block[axis]) + 2);
  const values = new Float32Array(size[0] * size[1] * size[2]);
  const part = 1 / (block[0] * block[1] * block[2]);
  for (let s = 0, from = 0; s < shape[0]; s++) {
    const slice = (Math.floor(s / block[0]) + 1) * size[1];
    for (let r = 0; r < shape[1]; r++) {
      const line = (slice + Math.floor(r / block[1]) + 1) * size[2] + 1;
      for (let c = 0; c < shape[2]; c++, from++) {
        if (!source[from]) continue;
        const at = line + Math.floor(c / block[2]);
        values[at] = share ? values[at] + source[from] * part
                           : Math.max(values[at], source[from]);
      }
    }
  }
  return {values, size, toVoxel: (place) => place.map(
      (at, axis) => (at - 1) * block[axis] + (block[axis] - 1) / 2)};
}

// Naive surface nets: a point in every cell that the surface crosses, and a face
// around every edge that it crosses. Points in NiiVue's millimetres (RAS).
function surface(grid, level) {
  const {values, size} = grid;
  const steps = [size[1] * size[2], size[2], 1];
  const numbers = new Int32Array(values.length).fill(-1);
  const points = [], faces = [];
  const corners = [0, 1, 2, 3, 4, 5, 6, 7].map((bits) => [bits >> 2, bits >> 1 & 1, bits & 1]);
  const offsets = corners.map((corner) => corner.reduce(
      (sum, bit, axis) => sum + bit * steps[axis], 0));
  const edges = [];
  for (let a = 0; a < 8; a++) {
    for (let b = a + 1; b < 8; b++) if ([1, 2, 4].includes(a ^ b)) edges.push([a, b]);
  }
  for (let i = 0; i + 1 < size[0]; i++) {
    for (let j = 0; j + 1 < size[1]; j++) {
      for (let k = 0; k + 1 < size[2]; k++) {
        const at = i * steps[0] + j * steps[1] + k;
        let crossed = 0;
        const place = [0, 0, 0];
        for (const [a, b] of edges) {
          const low = values[at + offsets[a]], high = values[at + offsets[b]];
          if (low > level === high > level) continue;
          const part = (level - low) / (high - low);
          crossed++;
          for (let axis = 0; axis < 3; axis++) {
            place[axis] += corners[a][axis] + part * (corners[b][axis] - corners[a][axis]);
          }
        }
        if (!crossed) continue;
        const voxel = grid.toVoxel([i + place[0] / crossed, j + place[1] / crossed,
                                    k + place[2] / crossed]);
        const [x, y, z] = millimetres(voxel);
        numbers[at] = points.length / 3;
        points.push(-x, -y, z);
      }
    }
  }
  const mirrored = determinant() < 0;
  for (let i = 1; i + 1 < size[0]; i++) {
    for (let j = 1; j + 1 < size[1]; j++) {
      for (let k = 1; k + 1 < size[2]; k++) {
        const at = i * steps[0] + j * steps[1] + k;
        for (let axis = 0; axis < 3; axis++) {
          const inside = values[at] > level;
          if (inside === values[at + steps[axis]] > level) continue;
          const u = steps[(axis + 1) % 3], v = steps[(axis + 2) % 3];
          const [a, b, c, d] = [at - u - v, at - v, at, at - u].map((cell) => numbers[cell]);
          if (inside !== mirrored) faces.push(a, b, c, a, c, d);
          else faces.push(a, c, b, a, d, c);
        }
      }
    }
  }
  return {points: new Float32Array(points), faces: new Uint32Array(faces)};
}

function determinant() {
  const [[a, b, c], [d, e, f], [g, h, i]] = study.affine;
  return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
}

function hasWebGl2() {
  return Boolean(document.createElement('canvas').getContext('webgl2'));
}

function sayWithoutWebGl2() {
  document.getElementById('no-webgl').hidden = false;
  document.getElementById('turnable').hidden = true;
}

async function startScene() {
  if (!hasWebGl2()) {
    sayWithoutWebGl2();
    return;
  }
  const script = document.createElement('script');
  script.textContent = document.getElementById('niivue').textContent;
  document.head.append(script);
  scene = new niivue.Niivue({
    logLevel: 'silent', interactive: false, isResizeCanvas: true, isOrientCube: false,
    show3Dcrosshair: false, backColor: [0.04, 0.055, 0.075, 1], sliceType: 4,
    dragAndDropEnabled: false,
  });
  await scene.attachToCanvas(document.getElementById('turning'), true);
  scene.setSliceType(scene.sliceTypeRender);
  surfaces = {lungs: surface(coarse(lungs, true), 0.5), heat: coarse(heat, false)};
  buildSurfaces();
  turn(0, 0);
  document.getElementById('turning-note').textContent =
      'Drag, or use the arrow keys, to turn.';
}

function buildSurfaces() {
  if (!surfaces) return;
  for (const mesh of [...scene.meshes]) scene.removeMesh(mesh);
  // What is opaque comes first: the lungs are blended over it.
  const found = surface(surfaces.heat, LEVELS * state.threshold + 0.5);
  const drawn = state.map && found.faces.length ? [[found, 'map', MAP_COLOUR, 1]] : [];
  if (surfaces.lungs.faces.length) {
    drawn.push([surfaces.lungs, 'lungs', LUNG_COLOUR, drawn.length ? 0.35 : 0.7]);
  }
  for (const [{points, faces}, name, colour, opacity] of drawn) {
    const mesh = new niivue.NVMesh(
        points, faces, name, new Uint8Array(colour), opacity, true, scene.gl);
    scene.addMesh(mesh);
    // By default light comes from above, and the domes of the diaphragm are black.
    if (name === 'lungs') scene.setMeshShader(mesh.id, 'Diffuse');
  }
  sortLungs();
  scene.drawScene();
}

// Where the viewer stands, RAS.
function towardsViewer() {
  const [around, up] = [state.azimuth || 0, state.elevation || 0].map(
      (degrees) => degrees * Math.PI / 180);
  return {
    front: [Math.sin(around) * Math.cos(up), Math.cos(around) * Math.cos(up), Math.sin(up)],
    right: [-Math.cos(around), Math.sin(around), 0],
    top: [-Math.sin(around) * Math.sin(up), -Math.cos(around) * Math.sin(up), Math.cos(up)],
  };
}

// What is blended is drawn from the far side to the near one, else faces behind others
// come and go with the direction.
function sortLungs() {
  const mesh = scene.meshes.find((one) => one.name === 'lungs');
  if (!mesh) return;
  const {points, faces} = surfaces.lungs;
  const [x, y, z] = towardsViewer().front;
  const depths = new Float32Array(faces.length / 3);
  let low = Infinity, high = -Infinity;
  for (let face = 0; face < depths.length; face++) {
    const at = 3 * faces[3 * face];
    const depth = x * points[at] + y * points[at + 1] + z * points[at + 2];
    depths[face] = depth;
    low = Math.min(low, depth);
    high = Math.max(high, depth);
  }
  const BINS = 4096;
  const starts = new Uint32Array(BINS + 1);
  const bins = Uint16Array.from(
      depths, (depth) => (depth - low) / (high - low || 1) * (BINS - 1));
  for (const bin of bins) starts[bin + 1]++;
  for (let bin = 0; bin < BINS; bin++) starts[bin + 1] += starts[bin];
  const sorted = new Uint32Array(faces.length);
  for (let face = 0; face < bins.length; face++) {
    const to = 3 * starts[bins[face]]++;
    for (let corner = 0; corner < 3; corner++) sorted[to + corner] = faces[3 * face + corner];
  }
  const gl = scene.gl;
  gl.bindVertexArray(null);
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, mesh.indexBuffer);
  gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, sorted, gl.STATIC_DRAW);
}

// As on the planes: a second letter where an edge leans 15 degrees or more to it.
function sideLetters(direction) {
  return direction.map((part, axis) => [Math.abs(part), ['LR', 'PA', 'FH'][axis][+(part > 0)]])
      .filter(([size]) => size >= 0.2588)
      .sort(([a], [b]) => b - a).slice(0, 2).map(([, letter]) => letter).join('');
}

// Degrees: 0 from the front, 90 from the patient's right.
function turn(azimuth, elevation) {
  if (!surfaces) return;
  state.azimuth = (azimuth % 360 + 360) % 360;
  state.elevation = Math.max(-90, Math.min(90, elevation));
  sortLungs();
  scene.setRenderAzimuthElevation((180 + state.azimuth) % 360, state.elevation);
  document.getElementById('turned').textContent =
      `Turned ${Math.round(state.azimuth)}°, from ${Math.round(state.elevation)}° above`;
  const {right, top} = towardsViewer();
  const opposite = (direction) => direction.map((part) => -part);
  for (const [side, direction] of [['left', opposite(right)], ['right', right],
                                   ['top', top], ['bottom', opposite(top)]]) {
    document.querySelector(`#turning ~ .${side}`).textContent = sideLetters(direction);
  }
}
