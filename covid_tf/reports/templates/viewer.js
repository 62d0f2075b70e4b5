// What hands and keys do.
const byId = (id) => document.getElementById(id);
const at = byId('at'), pointed = byId('pointer');
let active = planes[0];  // Or null: what turns.
let waiting = 0, rebuilding = 0;

// With a true minus, and none before a zero.
const number = (value, digits = 0) =>
    value.toFixed(digits).replace(/^-(?=0(\.0*)?$)/, '').replace('-', '\u2212');
const span = ([first, last]) => first === last ? `${first}` : `${first}\u2013${last}`;

function inWords(voxel) {
  const index = indexOf(voxel);
  const [x, y, z] = millimetres(voxel).map((value) => number(value, 1));
  const [slice, row, column] = voxel.map((place, axis) => span(ctSpan(axis, place)));
  return `${number(hu[index])} HU, map ${(heat[index] / LEVELS).toFixed(2)}; slice ` +
      `${slice}, row ${row}, column ${column}; x ${x}, y ${y}, z ${z} mm`;
}

function draw() {
  waiting = waiting || requestAnimationFrame(() => {
    waiting = 0;
    planes.forEach(paint);
    at.textContent = inWords(state.at);
    for (const plane of planes) {
      const slider = byId(`${plane.name}-slider`);
      slider.value = state.at[plane.fixed];
      slider.setAttribute('aria-valuetext', captionOf(plane));
      byId(`${plane.name}-caption`).textContent = captionOf(plane);
    }
    const [first, last] = ctSpan(0, state.at[0]);
    for (const button of document.querySelectorAll('[data-slice]')) {
      const slice = Number(button.dataset.slice);
      button.setAttribute('aria-pressed', slice >= first && slice <= last);
    }
    document.querySelectorAll('[data-window]').forEach((button, place) => {
      const [center, width] = study.windows[place];
      button.setAttribute(
          'aria-pressed', state.center === center && state.width === width);
    });
    if (state.some) document.body.dataset.painted = 'yes';
  });
}

function captionOf(plane) {
  const [first, last] = ctSpan(plane.fixed, state.at[plane.fixed]);
  const name = ['Slice', 'Row', 'Column'][plane.fixed];
  const text = `${name} ${span([first, last])} of 0 to ${study.ctShape[plane.fixed] - 1}`;
  if (plane.fixed) return text;
  let probability = 0, score = 0;
  for (let slice = first; slice <= last; slice++) {
    probability = Math.max(probability, study.probability[slice]);
    score += study.score[slice];
  }
  return `${text}: COVID-19 probability ${probability.toFixed(2)}, ` +
      `${score.toFixed(score < 1 ? 2 : 1)} cm³ of the score`;
}

function moveTo(voxel) {
  state.at = voxel.map(
      (place, axis) => Math.max(0, Math.min(shape[axis] - 1, Math.round(place))));
  draw();
}

function scroll(plane, steps) {
  const voxel = [...state.at];
  voxel[plane.fixed] += steps;
  moveTo(voxel);
}

function step(plane, across, down) {
  const voxel = [...state.at];
  voxel[plane.across.axis] += plane.across.reversed ? -across : across;
  voxel[plane.down.axis] += plane.down.reversed ? -down : down;
  moveTo(voxel);
}

// Moves what is shown by CSS pixels.
function pan(plane, x, y) {
  const place = placing(plane);
  for (const [side, by] of [[plane.across, x / place.across], [plane.down, y / place.down]]) {
    const centre = state.centre[side.axis] - (side.reversed ? -by : by);
    state.centre[side.axis] = Math.max(0, Math.min(shape[side.axis] - 1, centre));
  }
  draw();
}

// About a place in the canvas, else about the crosshair.
function zoom(factor, plane, x, y) {
  const before = state.zoom;
  state.zoom = Math.max(1, Math.min(20, state.zoom * factor));
  if (state.zoom === 1) {
    state.centre = shape.map((length) => (length - 1) / 2);
  } else {
    const kept = plane ? voxelAt(plane, x, y) : state.at;
    const part = 1 - before / state.zoom;
    state.centre = state.centre.map((centre, axis) =>
      Math.max(0, Math.min(shape[axis] - 1, centre + (kept[axis] - centre) * part)));
  }
  draw();
}

function reset() {
  state.zoom = 1;
  state.centre = shape.map((length) => (length - 1) / 2);
  draw();
}

function chooseWindow(center, width) {
  setWindow(center, width);
  byId('center').value = state.center;
  byId('width').value = state.width;
  draw();
}

function setShare(name, value) {
  state[name] = Math.max(0, Math.min(name === 'threshold' ? 0.99 : 1, value));
  byId(name).value = state[name];
  byId(`${name}-value`).textContent = state[name].toFixed(2);
  draw();
  if (name === 'threshold') rebuildSoon();
}

function rebuildSoon() {
  clearTimeout(rebuilding);
  rebuilding = setTimeout(buildSurfaces, 250);
}

function toggle(name) {
  state[name] = !state[name];
  byId(`show-${name}`).checked = state[name];
  draw();
  if (name === 'map') rebuildSoon();
}

// `ctSlice` as in result.json; the place on it is where its map is highest.
function jump(ctSlice) {
  const slice = viewerSlice(ctSlice);
  moveTo(placeOn(slice) || [slice, state.at[1], state.at[2]]);
}

function jumpToNext(steps) {
  const buttons = [...document.querySelectorAll('[data-slice]')];
  if (!buttons.length) return;
  const pressed = buttons.findIndex(
      (button) => button.getAttribute('aria-pressed') === 'true');
  const next = pressed < 0 ? (steps > 0 ? 0 : buttons.length - 1)
                           : (pressed + steps + buttons.length) % buttons.length;
  jump(Number(buttons[next].dataset.slice));
}

function asked() {
  const found = /^#slice=(\d+)$/.exec(window.location.hash);
  return found ? Number(found[1]) : null;
}

function onPlane(plane) {
  const canvas = plane.canvas;
  const fingers = new Map();
  const placeOf = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  let moving = '';
  canvas.addEventListener('focus', () => { active = plane; });
  canvas.addEventListener('contextmenu', (event) => event.preventDefault());
  canvas.addEventListener('pointerdown', (event) => {
    canvas.focus();
    fingers.set(event.pointerId, placeOf(event));
    canvas.setPointerCapture(event.pointerId);
    moving = event.shiftKey || event.button === 1 ? 'pan' :
        event.button === 2 ? 'window' : 'crosshair';
    if (moving === 'crosshair' && fingers.size === 1) {
      moveTo(voxelAt(plane, ...placeOf(event)));
    }
  });
  canvas.addEventListener('pointermove', (event) => {
    const place = placeOf(event);
    const before = fingers.get(event.pointerId);
    if (!before) {
      const voxel = voxelAt(plane, ...place);
      pointed.textContent = isInside(voxel) ? inWords(voxel) : 'beyond the picture';
      return;
    }
    const others = [...fingers].filter(([id]) => id !== event.pointerId);
    fingers.set(event.pointerId, place);
    if (others.length) {
      const [[, other]] = others;
      const apart = (from) => Math.hypot(from[0] - other[0], from[1] - other[1]);
      zoom(apart(place) / Math.max(1, apart(before)), plane, ...other);
    } else if (moving === 'pan') {
      pan(plane, place[0] - before[0], place[1] - before[1]);
    } else if (moving === 'window') {
      // To the right wider, upwards brighter.
      chooseWindow(state.center + Math.round(2 * (place[1] - before[1])),
                   state.width + Math.round(4 * (place[0] - before[0])));
    } else {
      moveTo(voxelAt(plane, ...place));
    }
  });
  for (const end of ['pointerup', 'pointercancel']) {
    canvas.addEventListener(end, (event) => fingers.delete(event.pointerId));
  }
  canvas.addEventListener('pointerleave', () => { pointed.textContent = '–'; });
  canvas.addEventListener('wheel', (event) => {
    event.preventDefault();
    if (event.ctrlKey) {
      zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, plane, ...placeOf(event));
    } else {
      // Away from oneself is towards the head, to the front, to the right.
      scroll(plane, Math.sign(-event.deltaY) * (headwards(plane) ? 1 : -1));
    }
  }, {passive: false});
  byId(`${plane.name}-slider`).addEventListener('input', (event) => {
    scroll(plane, Number(event.target.value) - state.at[plane.fixed]);
  });
}

// Whether slices of the plane are numbered towards the head, the front, the right.
function headwards(plane) {
  if (plane.fixed === 0) return true;
  const world = plane.name === 'coronal' ? 1 : 0;
  return study.affine[world][plane.fixed] < 0;
}

function onTurning() {
  const canvas = byId('turning');
  let from = null;
  canvas.addEventListener('focus', () => { active = null; });
  canvas.addEventListener('pointerdown', (event) => {
    canvas.focus();
    canvas.setPointerCapture(event.pointerId);
    from = [event.clientX, event.clientY];
  });
  canvas.addEventListener('pointermove', (event) => {
    if (!from) return;
    turn(state.azimuth + (from[0] - event.clientX) / 2,
         state.elevation + (event.clientY - from[1]) / 2);
    from = [event.clientX, event.clientY];
  });
  for (const end of ['pointerup', 'pointercancel']) {
    canvas.addEventListener(end, () => { from = null; });
  }
  for (const button of document.querySelectorAll('[data-turn]')) {
    button.addEventListener('click', () => turn(Number(button.dataset.turn), 0));
  }
}

function choosePlane(plane) {
  (plane ? plane.canvas : byId('turning')).focus();
}

const arrows = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
const keys = {
  PageUp: () => active && scroll(active, headwards(active) ? 1 : -1),
  PageDown: () => active && scroll(active, headwards(active) ? -1 : 1),
  Home: () => active && scroll(active, -Infinity),
  End: () => active && scroll(active, Infinity),
  '+': () => zoom(1.25), '=': () => zoom(1.25), '-': () => zoom(0.8), '0': reset,
  '1': () => chooseWindow(...study.windows[0]),
  '2': () => chooseWindow(...study.windows[1]),
  '3': () => chooseWindow(...study.windows[2]),
  '[': () => chooseWindow(state.center - 25, state.width),
  ']': () => chooseWindow(state.center + 25, state.width),
  '{': () => chooseWindow(state.center, state.width - 50),
  '}': () => chooseWindow(state.center, state.width + 50),
  m: () => toggle('map'), l: () => toggle('lungs'), x: () => toggle('crosshair'),
  i: () => toggle('smooth'),
  o: () => setShare('opacity', state.opacity - 0.1),
  p: () => setShare('opacity', state.opacity + 0.1),
  t: () => setShare('threshold', state.threshold - 0.05),
  y: () => setShare('threshold', state.threshold + 0.05),
  a: () => choosePlane(planes[0]), c: () => choosePlane(planes[1]),
  s: () => choosePlane(planes[2]), v: () => choosePlane(null),
  n: () => jumpToNext(1), b: () => jumpToNext(-1),
};

function onKey(event) {
  const field = event.target.closest('input, summary');
  if (field && field.type !== 'checkbox' || event.ctrlKey || event.metaKey || event.altKey) {
    return;
  }
  const arrow = arrows[event.key];
  const onCanvas = event.target.tagName === 'CANVAS';
  if (arrow && onCanvas) {
    if (!active) turn(state.azimuth + 10 * arrow[0], state.elevation - 10 * arrow[1]);
    else if (event.shiftKey) pan(active, -20 * arrow[0], -20 * arrow[1]);
    else step(active, ...arrow);
  } else if (['PageUp', 'PageDown', 'Home', 'End'].includes(event.key) && !onCanvas) {
    return;  // They scroll the page.
  } else if (keys[event.key]) {
    keys[event.key]();
  } else {
    return;
  }
  event.preventDefault();
}

function onControls() {
  document.querySelectorAll('[data-window]').forEach((button, place) => {
    button.addEventListener('click', () => chooseWindow(...study.windows[place]));
  });
  for (const id of ['center', 'width']) {
    byId(id).addEventListener('change', () => {
      const values = [byId('center'), byId('width')].map((field) => field.valueAsNumber);
      if (values.every(Number.isFinite)) chooseWindow(...values);
    });
  }
  for (const name of ['opacity', 'threshold']) {
    byId(name).addEventListener('input', () => setShare(name, byId(name).valueAsNumber));
    setShare(name, state[name]);
  }
  for (const name of ['map', 'lungs', 'crosshair', 'smooth']) {
    byId(`show-${name}`).addEventListener('change', () => toggle(name));
  }
  byId('zoom-in').addEventListener('click', () => zoom(1.25));
  byId('zoom-out').addEventListener('click', () => zoom(0.8));
  byId('reset').addEventListener('click', reset);
  for (const button of document.querySelectorAll('[data-slice]')) {
    button.addEventListener('click', () => jump(Number(button.dataset.slice)));
  }
  document.addEventListener('keydown', onKey);
  window.addEventListener('hashchange', () => {
    if (asked() !== null) jump(asked());
  });
  new ResizeObserver(draw).observe(byId('planes'));
}

async function start() {
  if (typeof DecompressionStream === 'undefined') {
    byId('loading').textContent = 'This browser is too old for this page: it cannot ' +
        'unpack the CT. The report needs nothing of it.';
    return;
  }
  byId('app').hidden = false;
  chooseWindow(...study.windows[0]);
  planes.forEach(onPlane);
  onTurning();
  onControls();
  const first = viewerSlice(asked() ?? study.slice);
  let shown = 0;
  await load(first, async () => {
    state.some = true;
    if (!shown++) jump(asked() ?? study.slice);
    else draw();
    byId('loading').textContent = `Unpacking the CT: ${shown} parts so far.`;
    await new Promise((resume) => setTimeout(resume));  // Lets the page be drawn.
  });
  byId('loading').hidden = true;
  document.body.dataset.loaded = 'yes';
  try {
    await startScene();
  } catch (error) {
    scene = null;
    sayWithoutWebGl2();
  }
  document.body.dataset.turning = scene ? 'yes' : 'no';
}

start();
