// The chart: curves of the visible runs on shared axes. Knows nothing of tables and pictures.

const MARGIN = { left: 62, right: 14, top: 14, bottom: 34 };
const DASHES = [[], [7, 4], [2, 3]];
const NEAR = 60; // pixels within which a point answers to the pointer

// Four digits that count.
function short(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size < 1e-3 || size >= 1e7 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
  return text.replace("-", "−");
}

// About `count` round numbers from low to high.
function ticks(low, high, count) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= raw * 0.7);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) found.push(Number(at.toPrecision(12)));
  return found;
}

function decades(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
    for (const each of [1, 2, 5]) if (each * 10 ** power >= low && each * 10 ** power <= high) found.push(each * 10 ** power);
  return found.length > 9 ? found.filter((each) => Number.isInteger(Math.log10(each)) || Math.abs(Math.log10(each) - Math.round(Math.log10(each))) < 1e-9) : found;
}

// What the value axis reaches over: all values, but for rare ones so far off that they would flatten the rest.
function reach(values) {
  const sorted = Float64Array.from(values).sort();
  const at = (share) => sorted[Math.round(share * (sorted.length - 1))];
  const [low, high] = [at(0.005), at(0.995)];
  const far = high - low || Math.abs(high) || 1;
  const bottom = sorted[0] < low - far ? low : sorted[0];
  const top = sorted[sorted.length - 1] > high + far ? high : sorted[sorted.length - 1];
  return { bottom, top, beyond: [sorted[0] < bottom && sorted[0], sorted[sorted.length - 1] > top && sorted[sorted.length - 1]] };
}

// canvas, tip (shows what is read), told (a function that is given what lies beyond the chart).
function makeChart(canvas, tip, data, told) {
  const chart = { state: null, lines: [], read: null };
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function collect({ value, axis, logarithmic, visible }) {
    const lines = [];
    for (const run of visible) {
      const curve = data.curves[run][value];
      if (!curve) continue;
      const x = data.axes[curve[0]][axis];
      if (!x) continue;
      const points = [];
      curve[1].forEach((y, index) => { if (!logarithmic || y > 0) points.push([x[index], y]); });
      if (points.length) lines.push({ run, axis: curve[0], points });
    }
    return lines;
  }

  chart.draw = (state) => {
    chart.state = state;
    chart.lines = collect(state);
    chart.read = null;
    tip.hidden = true;
    paint();
  };

  function paint() {
    const box = canvas.getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
    const [width, height] = [box.width, box.height];
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    pen.font = `12px ${getComputedStyle(document.body).fontFamily}`;
    const [ink, line, paper] = ["--muted", "--line", "--paper"].map(style);
    if (!chart.lines.length) {
      pen.fillStyle = ink;
      pen.fillText("No visible run has this value here.", MARGIN.left, height / 2);
      told([]);
      return;
    }
    const { logarithmic } = chart.state;
    const shape = logarithmic ? Math.log10 : (y) => y;
    let right = 0;
    const values = [];
    for (const each of chart.lines) for (const [x, y] of each.points) { right = Math.max(right, x); values.push(shape(y)); }
    let { bottom, top, beyond } = reach(values);
    told(beyond.filter((each) => each !== false).map((each) => short(logarithmic ? 10 ** each : each)));
    const air = (top - bottom) * 0.06 || Math.abs(top) * 0.05 || 1;
    bottom -= air;
    top += air;
    right = right || 1;
    const inner = { width: width - MARGIN.left - MARGIN.right, height: height - MARGIN.top - MARGIN.bottom };
    const px = (x) => MARGIN.left + (x / right) * inner.width;
    const py = (y) => MARGIN.top + ((top - shape(y)) / (top - bottom)) * inner.height;
    chart.place = ([x, y]) => [px(x), py(y)];

    pen.lineWidth = 1;
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    for (const at of logarithmic ? decades(10 ** bottom, 10 ** top) : ticks(bottom, top, 5)) {
      pen.strokeStyle = line;
      pen.beginPath();
      pen.moveTo(MARGIN.left, py(at));
      pen.lineTo(width - MARGIN.right, py(at));
      pen.stroke();
      pen.fillStyle = ink;
      pen.fillText(short(at), MARGIN.left - 8, py(at));
    }
    pen.textBaseline = "top";
    pen.textAlign = "center";
    for (const at of ticks(0, right, width < 500 ? 4 : 8)) pen.fillText(short(at), px(at), height - MARGIN.bottom + 8);
    pen.textAlign = "right";
    pen.fillText(chart.state.axis ? "hours" : "kimg", width - MARGIN.right, height - 14);

    pen.save();
    pen.beginPath();
    pen.rect(MARGIN.left - 4, MARGIN.top - 6, inner.width + 8, inner.height + 12);
    pen.clip();
    const chosen = chart.read && chart.read.line;
    for (const each of chart.lines) if (each !== chosen) stroke(each, chosen ? 0.25 : chart.lines.length > 30 ? 0.55 : 0.9, 1.5);
    if (chosen) {
      stroke(chosen, 1, 2.5);
      const [x, y] = chart.place(chosen.points[chart.read.index]);
      pen.fillStyle = shade(chosen.run);
      pen.strokeStyle = paper;
      pen.lineWidth = 2;
      pen.beginPath();
      pen.arc(x, y, 5, 0, 7);
      pen.fill();
      pen.stroke();
    }
    pen.restore();

    function stroke({ run, points }, alpha, thick) {
      pen.globalAlpha = alpha;
      pen.strokeStyle = pen.fillStyle = shade(run);
      pen.lineWidth = thick;
      pen.setLineDash(DASHES[data.runs[run].dash]);
      pen.beginPath();
      points.forEach((point, index) => (index ? pen.lineTo(...chart.place(point)) : pen.moveTo(...chart.place(point))));
      pen.stroke();
      pen.setLineDash([]);
      if (points.length <= 40) for (const point of points) {
        const [x, y] = chart.place(point);
        pen.beginPath();
        pen.arc(x, y, thick + 1, 0, 7);
        pen.fill();
      }
      pen.globalAlpha = 1;
    }
  }

  const shade = (run) => style(`--series-${data.runs[run].colour}`);

  // Show the point `index` of a line beside the chart.
  function show(line, index) {
    chart.read = { line, index };
    paint();
    const [x, y] = chart.place(line.points[index]);
    const { name, group } = data.runs[line.run];
    const [value, where] = line.points[index].map(short).reverse();
    tip.replaceChildren();
    for (const [kind, text] of [["b", name], ["div", group], ["div", `${value} at ${where} ${chart.state.axis ? "hours" : "kimg"}`]]) {
      const part = document.createElement(kind);
      part.textContent = text;
      tip.append(part);
    }
    tip.hidden = false;
    const box = canvas.getBoundingClientRect();
    tip.style.left = `${Math.max(0, Math.min(x + 14, box.width - tip.offsetWidth))}px`;
    tip.style.top = `${y + 14 + tip.offsetHeight > box.height ? Math.max(0, y - 14 - tip.offsetHeight) : y + 14}px`;
  }

  function hide() {
    if (!chart.read) return;
    chart.read = null;
    tip.hidden = true;
    paint();
  }

  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const [atX, atY] = [event.clientX - box.left, event.clientY - box.top];
    let best = null, nearest = NEAR ** 2;
    for (const line of chart.lines) line.points.forEach((point, index) => {
      const [x, y] = chart.place(point), away = (x - atX) ** 2 + (y - atY) ** 2;
      if (away < nearest) [nearest, best] = [away, { line, index }];
    });
    if (!best) hide();
    else if (!chart.read || chart.read.line !== best.line || chart.read.index !== best.index) show(best.line, best.index);
  });
  canvas.addEventListener("pointerleave", hide);
  canvas.addEventListener("blur", hide);
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (event.key === "Escape") hide();
    if (!step || !chart.lines.length) return;
    event.preventDefault();
    let at = chart.read ? chart.lines.indexOf(chart.read.line) : 0;
    at = (at + (chart.read ? step[0] : 0) + chart.lines.length) % chart.lines.length;
    const line = chart.lines[at], last = line.points.length - 1;
    show(line, Math.max(0, Math.min(last, chart.read ? chart.read.index + step[1] : last)));
  });
  new ResizeObserver(() => { if (chart.state) paint(); }).observe(canvas);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (chart.state) paint(); });
  return chart;
}
