// Tables, the filter, the chart's controls and the pictures.

const data = JSON.parse(document.getElementById("data").textContent);
const find = (id) => document.getElementById(id);
const everyRun = data.runs.map((_, run) => run);

// -- tables: a click on a heading sorts, a second one the other way; what has no value comes last -----------------------

function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((each) => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows].map((row) => {
      const cell = row.cells[column], text = cell.dataset.value ?? cell.textContent.trim();
      return { row, text, number: text === "" ? NaN : Number(text), gone: text === "" || text === "–" };
    });
    rows.sort((a, b) => {
      if (a.gone || b.gone) return a.gone - b.gone;
      const numbers = !Number.isNaN(a.number) && !Number.isNaN(b.number);
      const order = numbers ? a.number - b.number : a.text.localeCompare(b.text, "en", { numeric: true });
      return down ? -order : order;
    });
    table.tBodies[0].append(...rows.map(({ row }) => row));
  }));
}
document.querySelectorAll("table").forEach(sortable);

// -- which runs are shown ------------------------------------------------------------------------------------------------

const rowsOf = everyRun.map(() => []);
document.querySelectorAll("tr[data-run]").forEach((row) => rowsOf[row.dataset.run].push(row));
const texts = rowsOf.map((rows) => rows.map((row) => row.textContent).join(" ").toLowerCase());
const cards = new Map();
let filtered = everyRun;

function filter() {
  const words = find("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  filtered = everyRun.filter((run) => words.every((word) => texts[run].includes(word)));
  const shown = new Set(filtered);
  rowsOf.forEach((rows, run) => rows.forEach((row) => { row.hidden = !shown.has(run); }));
  cards.forEach((card, run) => { card.hidden = !shown.has(run); });
  find("count").textContent = `${filtered.length} of ${everyRun.length} runs`;
  draw();
}

// -- the chart -----------------------------------------------------------------------------------------------------------

const chart = makeChart(find("chart"), find("tip"), data, (beyond) => {
  find("beyond").textContent = beyond.length ? `Rare values beyond the chart reach ${beyond.join(" and ")}.` : "";
});
const KINDS = { metric: "Metrics", scalar: "Logged values", speed: "Speed" };
for (const [kind, label] of Object.entries(KINDS)) {
  const members = data.names.map((each, index) => ({ ...each, index })).filter((each) => each.kind === kind);
  if (!members.length) continue;
  const group = document.createElement("optgroup");
  group.label = label;
  for (const { name, index } of members) group.append(new Option(name, index));
  find("value").append(group);
}

function draw() {
  const on = new Set([...document.querySelectorAll("#groups input:checked")].map((box) => Number(box.value)));
  const value = Number(find("value").value), axis = Number(document.querySelector("[name=axis]:checked").value);
  const visible = filtered.filter((run) => on.has(data.runs[run].groupIndex));
  chart.draw({ value, axis, logarithmic: find("log").checked, visible });
  const over = axis ? "hours in steps" : "thousands of images";
  find("chart").setAttribute("aria-label", `${data.names[value].name} over ${over}: ${chart.lines.length} curves`);
}
find("filter").addEventListener("input", filter);
for (const control of document.querySelectorAll("#value, [name=axis], #log, #groups input")) control.addEventListener("change", draw);
draw();

// -- pictures: read when the section comes near, decoded when their card does -----------------------------------------------

const slider = find("moment");
if (slider) {
  new IntersectionObserver((entries, observer) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    openPictures(JSON.parse(find("pictures").textContent));
  }, { rootMargin: "800px" }).observe(find("samples"));
}

function openPictures(all) {
  const stops = [...new Set(all.flat().map((picture) => picture.kimg))].sort((a, b) => a - b);
  const near = new Set();
  slider.max = stops.length - 1;
  slider.value = slider.max;

  function update(run) {
    const card = cards.get(run), now = stops[slider.value];
    const picture = all[run].findLast((each) => each.kimg <= now) ?? all[run][0];
    const image = card.querySelector("img");
    if (image.src === picture.source) return;
    image.width = picture.width;
    image.height = picture.height;
    image.alt = `Samples of ${data.runs[run].name} at ${short(picture.kimg)} kimg`;
    image.src = picture.source;
    const size = picture.of ? `${picture.of} px, made smaller` : `${picture.width} × ${picture.height} px`;
    card.querySelector(".quiet").textContent = `${short(picture.kimg)} kimg · ${picture.phase} · ${size}`;
  }

  const seen = new IntersectionObserver((entries) => entries.forEach(({ target, isIntersecting }) => {
    const run = Number(target.dataset.run);
    if (!isIntersecting) near.delete(run);
    else { near.add(run); update(run); }
  }), { rootMargin: "300px" });

  all.forEach((pictures, run) => {
    if (!pictures.length) return;
    const card = document.createElement("figure"), image = document.createElement("img");
    const caption = document.createElement("figcaption"), where = document.createElement("div");
    card.dataset.run = run;
    image.decoding = "async";
    image.alt = "";
    [image.width, image.height] = [pictures[0].width, pictures[0].height];
    where.className = "quiet";
    caption.append(data.runs[run].name, where);
    card.append(image, caption);
    card.hidden = !filtered.includes(run);
    cards.set(run, card);
    find("sheets").append(card);
    seen.observe(card);
  });

  function moved() {
    const text = `${short(stops[slider.value])} kimg`;
    find("moment-text").textContent = text;
    slider.setAttribute("aria-valuetext", text);
    near.forEach(update);
  }
  slider.addEventListener("input", moved);
  moved();
}
