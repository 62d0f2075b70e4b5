'use strict';
// Scrolls through the slices. Without scripts the page shows the most affected one.
(() => {
  const slices = JSON.parse(document.getElementById('slices').textContent);
  const axial = document.getElementById('axial');
  const slider = document.getElementById('slider');
  const part = (name) => axial.querySelector('.' + name);
  const levels = document.querySelectorAll('.views .level');
  let current = slices.findIndex((slice) => slice.start);

  function show(number) {
    current = Math.max(0, Math.min(slices.length - 1, number));
    const slice = slices[current];
    part('grey').setAttribute('href', slice.grey);
    if (slice.heat) {
      part('map').setAttribute('href', slice.heat);
    } else {
      part('map').removeAttribute('href');
    }
    part('counted').setAttribute('d', slice.counted);
    part('lungs').setAttribute('d', slice.lungs);
    document.getElementById('axial-title').textContent = slice.title;
    document.getElementById('axial-caption').textContent = slice.caption;
    for (const level of levels) {
      level.setAttribute(
          'd', level.getAttribute('d').replace(/^M0 [\d.]+/, 'M0 ' + slice.place));
    }
    slider.value = current;
    slider.setAttribute('aria-valuetext', slice.title);
  }

  function pick(event) {
    const box = event.currentTarget.getBoundingClientRect();
    const svg = event.currentTarget.querySelector('svg');
    const place = (event.clientY - box.top) / box.height * svg.viewBox.baseVal.height;
    const far = (slice) => Math.abs(slice.place - place);
    show(slices.reduce(
        (best, slice, number) => far(slice) < far(slices[best]) ? number : best, 0));
  }

  const steps = {ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1,
                 PageUp: -10, PageDown: 10, Home: -slices.length, End: slices.length};
  axial.tabIndex = 0;
  axial.setAttribute('role', 'group');
  axial.setAttribute('aria-labelledby', 'axial-title');
  axial.setAttribute('aria-describedby', 'axial-caption controls-hint');
  axial.addEventListener('keydown', (event) => {
    if (event.key in steps) {
      event.preventDefault();
      show(current + steps[event.key]);
    }
  });
  // The wheel scrolls the page until the picture has been clicked.
  axial.addEventListener('wheel', (event) => {
    if (document.activeElement === axial) {
      event.preventDefault();
      show(current + Math.sign(event.deltaY));
    }
  }, {passive: false});
  slider.addEventListener('input', () => show(Number(slider.value)));
  for (const id of ['coronal', 'sagittal', 'probability', 'score-by-slice']) {
    document.getElementById(id).addEventListener('click', pick);
  }
  for (const [id, name] of [['show-heat', 'no-heat'], ['show-outline', 'no-outline']]) {
    document.getElementById(id).addEventListener('change', (event) => {
      document.body.classList.toggle(name, !event.target.checked);
    });
  }
  document.getElementById('controls').hidden = false;
  show(current);
})();
