// Draws a map of ids, and shows the picture that the server paints of it.
"use strict";

const $ = (id) => document.getElementById(id);
const setting = JSON.parse($("setting").textContent);
const { width, height, classes } = setting;
const PAUSE_MS = 120; // from the end of a stroke until its picture is asked for
const UNDO_BYTES = 1 << 28;

// -- the map: ids, a byte a pixel -------------------------------------------------------------------------------------

let ids = new Uint8Array(width * height);
const canvas = $("map");
const context = canvas.getContext("2d", { alpha: false });
const shown = context.createImageData(width, height);
const pixels = new Uint32Array(shown.data.buffer);
const colours = new Uint32Array(256);
for (const { id, colour } of classes) colours[id] = new Uint32Array(new Uint8Array([...colour, 255]).buffer)[0];

function show(left = 0, top = 0, right = width, bottom = height) {
  for (let y = top; y < bottom; y++)
    for (let i = y * width + left; i < y * width + right; i++) pixels[i] = colours[ids[i]];
  context.putImageData(shown, 0, 0, left, top, right - left, bottom - top);
}

const same = (a, b) => a.every((id, i) => id === b[i]);

// A disc round a point; at least the pixel below it.
function stamp(x, y) {
  const radius = size.value / 2;
  const left = Math.max(0, Math.min(Math.floor(x), Math.ceil(x - radius - 0.5)));
  const right = Math.min(width, Math.max(Math.floor(x), Math.floor(x + radius - 0.5)) + 1);
  const top = Math.max(0, Math.min(Math.floor(y), Math.ceil(y - radius - 0.5)));
  const bottom = Math.min(height, Math.max(Math.floor(y), Math.floor(y + radius - 0.5)) + 1);
  for (let row = top; row < bottom; row++)
    for (let column = left; column < right; column++) {
      const below = row === Math.floor(y) && column === Math.floor(x);
      if (below || (column + 0.5 - x) ** 2 + (row + 0.5 - y) ** 2 <= radius ** 2) ids[row * width + column] = chosen;
    }
  if (left < right && top < bottom) show(left, top, right, bottom);
}

function line(from, to) {
  const step = Math.max(0.5, size.value / 8);
  const steps = Math.max(1, Math.ceil(Math.hypot(to.x - from.x, to.y - from.y) / step));
  for (let n = 1; n <= steps; n++) stamp(from.x + ((to.x - from.x) * n) / steps, from.y + ((to.y - from.y) * n) / steps);
}

// The connected part round a pixel becomes the chosen class.
function fill(start) {
  const old = ids[start];
  if (old === chosen) return;
  const open = [start];
  ids[start] = chosen;
  const take = (i) => {
    if (ids[i] !== old) return;
    ids[i] = chosen;
    open.push(i);
  };
  while (open.length) {
    const i = open.pop();
    const x = i % width;
    if (x > 0) take(i - 1);
    if (x < width - 1) take(i + 1);
    if (i >= width) take(i - width);
    if (i < ids.length - width) take(i + width);
  }
  show();
}

// -- what was, to go back to ------------------------------------------------------------------------------------------

const past = [];
const future = [];

function remember(before) {
  if (same(before, ids)) return;
  past.push(before);
  if (past.length > Math.max(8, UNDO_BYTES / ids.length)) past.shift();
  future.length = 0;
  changed();
}

function go(from, to) {
  if (stroke || !from.length) return;
  to.push(ids);
  ids = from.pop();
  show();
  changed();
}

function replace(next) {
  const before = ids;
  ids = next;
  show();
  remember(before);
}

// -- tools ------------------------------------------------------------------------------------------------------------

const size = $("size");
const ring = $("ring");
let chosen = classes[0].id;
let stroke = null; // where the pointer was, and the map before

const tool = () => document.querySelector("[name=tool]:checked").value;

function place(event) {
  const box = canvas.getBoundingClientRect();
  return { x: ((event.clientX - box.left) * width) / box.width, y: ((event.clientY - box.top) * height) / box.height };
}

function follow(event) {
  const box = canvas.getBoundingClientRect();
  const side = (Math.max(1, size.value) * box.width) / width;
  ring.hidden = tool() !== "brush" || event.pointerType === "touch";
  ring.style.width = ring.style.height = `${side}px`;
  ring.style.transform = `translate(${event.clientX - box.left - side / 2}px, ${event.clientY - box.top - side / 2}px)`;
}

canvas.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || !event.isPrimary) return;
  event.preventDefault();
  const at = place(event);
  const before = ids.slice();
  if (tool() === "fill") {
    const column = Math.min(width - 1, Math.max(0, Math.floor(at.x)));
    fill(Math.min(height - 1, Math.max(0, Math.floor(at.y))) * width + column);
    remember(before);
    return;
  }
  canvas.setPointerCapture(event.pointerId);
  stroke = { at, before };
  stamp(at.x, at.y);
});
canvas.addEventListener("pointermove", (event) => {
  follow(event);
  if (!stroke || !event.isPrimary) return;
  const passed = event.getCoalescedEvents?.() ?? [];
  for (const each of passed.length ? passed : [event]) {
    const to = place(each);
    line(stroke.at, to);
    stroke.at = to;
  }
});
for (const end of ["pointerup", "pointercancel"])
  canvas.addEventListener(end, (event) => {
    if (!stroke || !event.isPrimary) return;
    const { before } = stroke;
    stroke = null;
    remember(before);
  });
canvas.addEventListener("pointerleave", () => (ring.hidden = true));

for (const { id, name, colour } of classes) {
  const label = document.createElement("label");
  const input = Object.assign(document.createElement("input"), { type: "radio", name: "class", value: id });
  const swatch = document.createElement("span");
  input.checked = id === chosen;
  input.addEventListener("change", () => (chosen = id));
  swatch.className = "swatch";
  swatch.style.background = `rgb(${colour})`;
  label.append(input, swatch, name);
  $("classes").append(label);
}

function resize(by = 0) {
  size.value = Number(size.value) + by;
  $("size-shown").value = size.value;
}
size.addEventListener("input", () => resize());
$("undo").addEventListener("click", () => go(past, future));
$("redo").addEventListener("click", () => go(future, past));
$("clear").addEventListener("click", () => replace(new Uint8Array(ids.length).fill(chosen)));

document.addEventListener("keydown", (event) => {
  if (event.target.type === "number" || event.altKey) return;
  const key = event.key.toLowerCase();
  if (event.ctrlKey || event.metaKey) {
    if (key === "z") event.shiftKey ? go(future, past) : go(past, future);
    else if (key === "y") go(future, past);
    else return;
    event.preventDefault();
  } else if (key === "b" || key === "f") {
    document.querySelector(`[name=tool][value=${key === "b" ? "brush" : "fill"}]`).checked = true;
  } else if (key === "[" || key === "]") {
    resize(key === "[" ? -1 : 1);
  }
});

// -- the picture ------------------------------------------------------------------------------------------------------

let wanted = 0; // counts changes: the answer to an older one is dropped
let busy = false;
let timer = 0;
let picture = null;
let own = null; // a loaded instance map, and the ids that it belongs to

function changed() {
  wanted += 1;
  $("undo").disabled = !past.length;
  $("redo").disabled = !future.length;
  $("instances").textContent = instances() ? own.file.name : "the connected parts of each class";
  document.body.dataset.state = "painting";
  clearTimeout(timer);
  timer = setTimeout(paint, PAUSE_MS);
}

const instances = () => (own && same(own.ids, ids) ? own.file : null);

async function paint() {
  if (busy) return; // comes again when the picture in work is there
  busy = true;
  clearTimeout(timer); // this picture is of the newest map already
  const asked = wanted;
  const seed = $("seed").value;
  try {
    const answer = await post("paint", { label_map: await png(), instance_map: instances(), seed });
    const file = await answer.blob();
    const image = await createImageBitmap(file);
    if (asked === wanted) {
      picture = new File([file], `${setting.run}-${seed}.png`);
      $("picture").getContext("2d").drawImage(image, 0, 0);
      $("time").textContent = `painted in ${Math.round(answer.headers.get("Server-Timing").split("=")[1])} ms`;
      $("save-picture").disabled = false;
      if ($("message").dataset.from === "paint") tell("");
    }
  } catch (error) {
    if (asked === wanted) tell(error.message, true, "paint");
  }
  busy = false;
  if (asked !== wanted) paint();
  else document.body.dataset.state = "ready";
}

$("seed").addEventListener("change", () => {
  $("seed").value = Math.min(setting.mostSeed, Math.max(0, Math.floor($("seed").value)));
  changed();
});
$("another").addEventListener("click", () => {
  $("seed").value = (Number($("seed").value) + 1) % (setting.mostSeed + 1);
  changed();
});

// -- the server, files and messages -----------------------------------------------------------------------------------

async function post(path, parts) {
  const form = new FormData();
  for (const [name, value] of Object.entries(parts)) if (value !== null) form.append(name, value);
  let answer;
  try {
    answer = await fetch(path, { method: "POST", body: form });
  } catch {
    throw new Error("The server does not answer. Is `advgen paint` still running?");
  }
  if (answer.ok) return answer;
  const { refused } = await answer.json().catch(() => ({ refused: "The server failed; its terminal says why." }));
  throw new Error(refused);
}

function tell(text, bad = false, from = "file") {
  const message = $("message");
  message.textContent = text;
  message.hidden = !text;
  message.className = bad ? "bad" : "";
  message.dataset.from = from;
}

const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

// A person's file goes to the server, which reads any format of ids and says what is wrong with it.
function loads(input, parts, take) {
  $(input).addEventListener("change", async () => {
    const [file] = $(input).files;
    $(input).value = ""; // the same file may be loaded again
    if (!file) return;
    try {
      if (file.size > setting.mostBytes) throw new Error(`${file.name}: has more than ${setting.mostBytes >> 20} MiB.`);
      const answer = await (await post("check", await parts(file))).json();
      if (answer.refused) throw new Error(answer.refused);
      tell("");
      take(bytes(answer.ids), file);
    } catch (error) {
      tell(error.message, true);
    }
  });
}

loads("load", (file) => ({ label_map: file }), replace);
loads("load-instances", async (file) => ({ label_map: await png(), instance_map: file }), (checked, file) => {
  own = { ids: checked, file };
  changed();
});

function save(file) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(file), download: file.name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
$("save-map").addEventListener("click", async () => save(await png()));
$("save-picture").addEventListener("click", () => save(picture));

// The map as a PNG file of ids, with the colours as its palette: a canvas would write colours only.
async function png() {
  const rows = new Uint8Array((width + 1) * height); // each begins with its filter, none
  for (let y = 0; y < height; y++) rows.set(ids.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
  const zlib = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
  const header = new DataView(new ArrayBuffer(13));
  header.setUint32(0, width);
  header.setUint32(4, height);
  header.setUint16(8, 0x0803); // 8 bits, palette
  const palette = new Uint8Array(768);
  for (const { id, colour } of classes) palette.set(colour, 3 * id);
  const signature = new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10]);
  const packed = new Uint8Array(await new Response(zlib).arrayBuffer());
  const chunks = [["IHDR", new Uint8Array(header.buffer)], ["PLTE", palette], ["IDAT", packed], ["IEND", []]];
  return new File([signature, ...chunks.flatMap(chunk)], `${setting.run}-map.png`, { type: "image/png" });
}

function chunk([name, content]) {
  const data = new Uint8Array(4 + content.length);
  data.set(new TextEncoder().encode(name));
  data.set(content, 4);
  const ends = [new DataView(new ArrayBuffer(4)), new DataView(new ArrayBuffer(4))];
  ends[0].setUint32(0, data.length - 4);
  ends[1].setUint32(0, crc(data));
  return [ends[0], data, ends[1]];
}

function crc(data) {
  let value = ~0;
  for (const byte of data) {
    value ^= byte;
    for (let bit = 0; bit < 8; bit++) value = (value >>> 1) ^ (value & 1 && 0xedb88320);
  }
  return ~value >>> 0;
}

// -- the beginning ----------------------------------------------------------------------------------------------------

if (setting.ids) ids = bytes(setting.ids);
if (setting.instances) {
  own = { ids: ids.slice(), file: new File([bytes(setting.instances.file)], setting.instances.name) };
}
resize();
show();
changed();
