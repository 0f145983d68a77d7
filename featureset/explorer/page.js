"use strict";
(async () => {
const FOUND = 30, NOWHERE = 65535, OTHER = "#98a1ab";
const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc6fa3", "#56b4e9", "#d55e00", "#a89600",
  "#7b4fc4"];
const at = id => document.getElementById(id);

// Nothing from data is ever given to a parser of HTML: text nodes alone.
const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};
const bytes = text => {
  const raw = atob(text), out = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
  return out;
};
const numbers = (Kind, text) => new Kind(bytes(text).buffer);

if (typeof DecompressionStream === "undefined") {
  at("status").textContent = "This page needs a browser of 2023 or later.";
  return;
}
const stream = new Blob([bytes(at("packed").textContent)]).stream();
const data = await new Response(stream.pipeThrough(new DecompressionStream("deflate"))).json();
at("packed").remove();
const {ids, titles, labels, neighbours: k} = data;
const labelOf = numbers(Int32Array, data.labelOf);
const kinds = data.kinds.map(kind => ({
  name: kind.name,
  near: numbers(Int32Array, kind.near),
  cosines: numbers(Int8Array, kind.cosines),
  points: numbers(Uint16Array, kind.points),
}));
const norms = data.norms.map(each => ({...each, values: numbers(Float32Array, each.values)}));
const titleOf = i => titles && titles[i] || ids[i];
const labelName = i => labelOf[i] < 0 ? "no label" : labels[labelOf[i]];
const nearestOf = (kind, i) => [...kind.near.subarray(i * k, i * k + k)].filter(j => j >= 0);
let chosen = -1;

// --- search
const fold = text => text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();
const search = at("search"), list = at("found");
let folded = null, hits = [], active = -1;

function find(text) {
  folded ??= ids.map((id, i) => fold(titles && titles[i] ? `${titles[i]} ${id}` : id));
  const whole = fold(text).trim(), words = whole.split(/\s+/).filter(Boolean);
  const first = [], rest = [];
  let count = 0;
  if (words.length) for (let i = 0; i < folded.length; i++) {
    if (!words.every(word => folded[i].includes(word))) continue;
    count++;
    if (ids[i] === text.trim()) first.unshift(i);
    else if (folded[i].startsWith(whole)) first.length < FOUND && first.push(i);
    else if (rest.length < FOUND) rest.push(i);
  }
  return {hits: [...first, ...rest].slice(0, FOUND), count};
}
function show_found() {
  const found = find(search.value);
  hits = found.hits;
  active = -1;
  list.replaceChildren(...hits.map((i, n) => {
    const option = make("li", {role: "option", id: `option-${n}`, "aria-selected": "false"},
      titleOf(i), make("small", {}, `${ids[i]} · ${labelName(i)}`));
    option.addEventListener("pointerdown", event => event.preventDefault());
    option.addEventListener("click", () => open_hit(n));
    return option;
  }));
  const more = found.count - hits.length;
  if (more > 0) list.append(make("li", {role: "presentation"}, `and ${more} more: add a word`));
  if (!hits.length) list.append(make("li", {role: "presentation"}, "No item has these words."));
  set_open(search.value.trim() !== "");
}
function set_open(open) {
  list.hidden = !open;
  search.setAttribute("aria-expanded", open);
  if (!open) search.removeAttribute("aria-activedescendant");
}
function set_active(n) {
  list.children[active]?.setAttribute("aria-selected", "false");
  active = n;
  const option = list.children[n];
  option.setAttribute("aria-selected", "true");
  option.scrollIntoView({block: "nearest"});
  search.setAttribute("aria-activedescendant", option.id);
}
function open_hit(n) {
  set_open(false);
  go(hits[n]);
}
search.addEventListener("input", show_found);
search.addEventListener("focus", () => search.value.trim() && show_found());
search.addEventListener("blur", () => set_open(false));
search.addEventListener("keydown", event => {
  const steps = {ArrowDown: 1, ArrowUp: -1};
  if (event.key in steps) {
    event.preventDefault();
    if (list.hidden) show_found();
    if (!hits.length) return;
    const from = active < 0 && event.key === "ArrowUp" ? 0 : active;
    set_active((from + steps[event.key] + hits.length) % hits.length);
  } else if (event.key === "Enter") {
    if (!list.hidden && hits.length) open_hit(Math.max(active, 0));
  } else if (event.key === "Escape") {
    set_open(false);
  }
});

// --- an item and its neighbours
const address = i => `#item=${encodeURIComponent(ids[i])}`;
const rowOf = new Map(ids.map((id, i) => [id, i]));

function go(i) {
  show(i);
  location.hash = address(i);
}
function from_address() {
  const sought = location.hash.match(/^#item=(.*)$/);
  let id = null;
  try { id = sought && decodeURIComponent(sought[1]); } catch { /* no address of ours */ }
  return rowOf.get(id);
}
function show(i) {
  chosen = i;
  at("name").textContent = titleOf(i);
  const facts = [["id", ids[i]], ["label", labelName(i)]];
  for (const each of norms) {
    const norm = each.values[i];
    facts.push([`${each.kind} ${each.modality}`,
      Number.isNaN(norm) ? "lacking" : `norm ${norm.toPrecision(3)}`]);
  }
  at("facts").replaceChildren(...facts.map(([name, value]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, value))));
  const near = kinds.map(kind => nearestOf(kind, i));
  at("agreement").textContent = near.length === 2 && near[0].length && near[1].length
    ? `${near[0].filter(j => near[1].includes(j)).length} of ${near[0].length} are nearest by both.`
    : "";
  at("kinds").replaceChildren(...kinds.map((kind, n) => neighbour_list(kind, i, near, n)));
  draw();
}
function neighbour_list(kind, i, near, n) {
  const other = near[1 - n] ?? [], name = `Nearest by ${kind.name} features`;
  const rows = near[n].map((j, place) => {
    const notes = [];
    if (labelOf[j] >= 0) notes.push(labelOf[j] === labelOf[i] ? "same label" : labelName(j));
    const small = make("small", {}, notes.join(" · "));
    if (other.includes(j)) small.prepend(make("span", {class: "both"}, "● in both"),
      notes.length ? " · " : "");
    const button = make("button", {class: "near"}, make("span", {class: "title"}, titleOf(j)),
      make("span", {class: "cosine"}, (kind.cosines[i * k + place] / 100).toFixed(2)), small);
    button.addEventListener("click", () => {
      go(j);
      at("name").focus();
    });
    return make("li", {}, button);
  });
  return make("section", {class: "kind", "data-kind": kind.name, "aria-label": name},
    make("h3", {}, name), rows.length ? make("ol", {}, ...rows)
      : make("p", {}, "It has no such features."));
}
addEventListener("hashchange", () => {
  const i = from_address();
  if (i !== undefined && i !== chosen) show(i);
});

// --- the map
const canvas = at("map"), kindChoice = at("kind"), labelChoice = at("label");
const view = {x: 0, y: 0, zoom: 1};
kindChoice.append(...kinds.map((kind, n) => make("option", {value: n}, kind.name)));
labelChoice.append(make("option", {value: -1}, "the most frequent"),
  ...labels.map((name, n) => make("option", {value: n}, name)));
labelChoice.parentElement.hidden = !labels.length;
const counts = new Array(labels.length).fill(0);
for (const label of labelOf) if (label >= 0) counts[label]++;

const kindShown = () => kinds[+kindChoice.value];
function colour_of(label) {
  const only = +labelChoice.value;
  if (only >= 0) return label === only ? COLOURS[0] : OTHER;
  return label >= 0 && label < COLOURS.length ? COLOURS[label] : OTHER;
}
function projection() {
  const {points} = kindShown(), box = canvas.getBoundingClientRect();
  kindShown().extent ??= [0, 1].map(axis => {
    let most = 1;
    for (let i = axis; i < points.length; i += 2)
      if (points[i] !== NOWHERE && points[i] > most) most = points[i];
    return most;
  });
  const [w, h] = kindShown().extent, edge = 12;
  const scale = Math.min((box.width - 2 * edge) / w, (box.height - 2 * edge) / h) * view.zoom;
  const x = view.zoom === 1 ? w / 2 : view.x, y = view.zoom === 1 ? h / 2 : view.y;
  return {
    box,
    there: i => points[2 * i] !== NOWHERE,
    x: i => (points[2 * i] - x) * scale + box.width / 2,
    y: i => (y - points[2 * i + 1]) * scale + box.height / 2,
  };
}
function draw() {
  let at_ = projection();
  const {box} = at_;
  if (!box.width) return;
  const out = (place, length) => place < 0 || place > length;
  if (view.zoom > 1 && at_.there(chosen)
      && (out(at_.x(chosen), box.width) || out(at_.y(chosen), box.height))) {
    centre();
    at_ = projection();
  }
  const ratio = devicePixelRatio || 1;
  canvas.width = box.width * ratio;
  canvas.height = box.height * ratio;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const size = ids.length > 20000 ? 2 : ids.length > 3000 ? 3 : 4;
  const groups = new Map();
  for (let i = 0; i < ids.length; i++) {
    if (!at_.there(i)) continue;
    const colour = colour_of(labelOf[i]);
    if (!groups.has(colour)) groups.set(colour, []);
    groups.get(colour).push(i);
  }
  for (const [colour, items] of [...groups].sort(([a], [b]) => (b === OTHER) - (a === OTHER))) {
    pen.fillStyle = colour;
    pen.globalAlpha = colour === OTHER ? .45 : .8;
    for (const i of items) pen.fillRect(at_.x(i) - size / 2, at_.y(i) - size / 2, size, size);
  }
  pen.globalAlpha = 1;
  const ink = getComputedStyle(document.body).color;
  const ring = (i, radius, width) => {
    if (!at_.there(i)) return;
    pen.strokeStyle = ink;
    pen.lineWidth = width;
    pen.beginPath();
    pen.arc(at_.x(i), at_.y(i), radius, 0, 2 * Math.PI);
    pen.stroke();
  };
  for (const j of nearestOf(kindShown(), chosen)) ring(j, 5, 1.5);
  ring(chosen, 8, 3);
  at("pointed").textContent = at_.there(chosen) ? titleOf(chosen)
    : `${titleOf(chosen)}: has no such features, and no place here`;
  draw_legend();
}
function draw_legend() {
  const only = +labelChoice.value;
  const shown = only >= 0 ? [only] : labels.map((_, n) => n).slice(0, COLOURS.length);
  const entries = shown.map(n => [colour_of(n), labels[n], counts[n]]);
  const rest = ids.length - entries.reduce((sum, [, , count]) => sum + count, 0);
  if (rest) entries.push([OTHER, labels.length ? "all others" : "items", rest]);
  at("legend").replaceChildren(...entries.map(([colour, name, count]) => {
    const swatch = make("i");
    swatch.style.background = colour;
    return make("li", {}, swatch, `${name} (${count.toLocaleString("en")})`);
  }));
}
function nearest_point(x, y, within) {
  const at_ = projection();
  let best = -1, least = within * within;
  for (let i = 0; i < ids.length; i++) {
    if (!at_.there(i)) continue;
    const dx = at_.x(i) - x, dy = at_.y(i) - y, d = dx * dx + dy * dy;
    if (d < least) { least = d; best = i; }
  }
  return best;
}
function neighbour_towards(dx, dy) {
  const at_ = projection();
  if (!at_.there(chosen)) return nearest_point(at_.box.width / 2, at_.box.height / 2, Infinity);
  const x = at_.x(chosen), y = at_.y(chosen);
  let best = -1, least = Infinity;
  for (let i = 0; i < ids.length; i++) {
    if (i === chosen || !at_.there(i)) continue;
    const ex = at_.x(i) - x, ey = at_.y(i) - y, along = ex * dx + ey * dy;
    const aside = Math.abs(ex * dy) + Math.abs(ey * dx);
    if (along <= 0 || aside > along) continue;
    if (along + aside < least) { least = along + aside; best = i; }
  }
  return best;
}
function centre() {
  const {points} = kindShown();
  if (points[2 * chosen] !== NOWHERE) [view.x, view.y] = [points[2 * chosen], points[2 * chosen + 1]];
}
function zoom(factor) {
  view.zoom = factor ? Math.min(64, Math.max(1, view.zoom * factor)) : 1;
  centre();
  draw();
}
canvas.addEventListener("pointermove", event => {
  const i = nearest_point(event.offsetX, event.offsetY, 16);
  if (i >= 0) at("pointed").textContent = `${titleOf(i)} · ${labelName(i)}`;
});
canvas.addEventListener("pointerleave", () => { at("pointed").textContent = titleOf(chosen); });
canvas.addEventListener("click", event => {
  const i = nearest_point(event.offsetX, event.offsetY, 24);
  if (i >= 0) go(i);
});
canvas.addEventListener("keydown", event => {
  const ways = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
  const zooms = {"+": 2, "=": 2, "-": .5, "0": 0};
  if (event.key in ways) {
    const i = neighbour_towards(...ways[event.key]);
    if (i >= 0) go(i);
  } else if (event.key in zooms) zoom(zooms[event.key]);
  else return;
  event.preventDefault();
});
at("closer").addEventListener("click", () => zoom(2));
at("farther").addEventListener("click", () => zoom(.5));
at("whole").addEventListener("click", () => zoom(0));
kindChoice.addEventListener("change", () => zoom(0));
labelChoice.addEventListener("change", draw);
matchMedia("(prefers-color-scheme:dark)").addEventListener("change", draw);

// --- ready
at("status").hidden = true;
at("room").hidden = false;
if (ids.length) {
  const first = kinds[0].near.findIndex(j => j >= 0);  // of an item that has neighbours
  show(from_address() ?? Math.max(0, Math.floor(first / k)));
}
new ResizeObserver(draw).observe(canvas);
})();
