
"use strict";
(() => {
const SVG = "http://www.w3.org/2000/svg";
const TYPE_COLOURS = {
  NOTAB: "#2a9d8f", L1TAB: "#4c78c8", L2TAB: "#7058c4", L3TAB: "#a64fb8", L4TAB: "#c8468a",
  L1TAB_PIN: "#2f4f94", L2TAB_PIN: "#4a3694", L3TAB_PIN: "#7a2f8c", L4TAB_PIN: "#94285f",
  XALLOC: "#e9c46a", BROKEN: "#d62828", XTAB: "#b8bfc6",
};
const NEVER_NAMED = "never named";
const HATCH = "#f4a261";  // of frames that should have been named, and were not
const RECORD_COLOURS = [
  "#2a9d8f", "#e76f51", "#4c78c8", "#e9c46a", "#7058c4", "#8ab17d", "#c8468a", "#7f8c99",
  "#b5651d", "#46b1c9", "#94285f", "#5f7d2e", "#f4a261", "#2f4f94", "#d9a0c0", "#3d3d3d",
  "#9bd1c9", "#c9b458", "#a33b2a", "#6fa8dc",
];
const COLUMNS = 128;
const ROWS_SHOWN = 500;

const description = JSON.parse(document.getElementById("description").textContent);
const page = document.getElementById("page");

// What can't be seen, or turns a line round, is shown as its number.
const visible = (text) => String(text).replace(/[\p{C}\p{Zl}\p{Zp}]/gu,
  (character) => `\\u{${character.codePointAt(0).toString(16)}}`);
const count = (number) => Number(number).toLocaleString("en");
const hex = (number) => "0x" + Number(number).toString(16);
const bytes = (number) => {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (number >= 1024 && unit + 1 < units.length) { number /= 1024; unit += 1; }
  return `${unit ? number.toFixed(1) : number} ${units[unit]}`;
};
const range = (first, number) =>
  number === 1 ? hex(first) : `${hex(first)}-${hex(first + number - 1)}`;

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.map((child) => child instanceof Node ? child : visible(child)));
  return made;
}
function shape(name, attributes, title) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (title !== undefined) {
    const tip = document.createElementNS(SVG, "title");
    tip.textContent = visible(title);
    made.append(tip);
  }
  return made;
}
function section(title, id) {
  page.append(element("h2", { id }, title));
  const made = element("section", { "aria-labelledby": id });
  page.append(made);
  return made;
}
// A cell is a value, or [value, class].
function table(heads, rows) {
  const cell = (name) => (content) => Array.isArray(content)
    ? element(name, { class: content[1] }, content[0]) : element(name, {}, content);
  const body = rows.slice(0, ROWS_SHOWN).map((row) => element("tr", {}, ...row.map(cell("td"))));
  const made = element("table", {},
    element("thead", {}, element("tr", {}, ...heads.map(cell("th")))), element("tbody", {}, ...body));
  const frame = element("div", { class: "scroll" }, made);
  if (rows.length > ROWS_SHOWN) frame.append(element("p", { class: "hint" },
    `and ${count(rows.length - ROWS_SHOWN)} more rows, which inspect --json has`));
  return frame;
}
const number = (value) => [count(value), "number"];
function folded(title, note, content, open = false) {
  const made = element("details", open ? { open: "" } : {},
    element("summary", {}, title + " ", element("span", {}, note)), content);
  return made;
}
function swatch(colour) {
  const made = shape("svg", { viewBox: "0 0 1 1", "aria-hidden": "true" });
  made.append(shape("rect", { width: 1, height: 1, fill: colour }));
  return made;
}

// -- what it is

function heading() {
  const image = description.image;
  page.append(element("h1", {}, image.name || "(a guest without a name)"));
  const saved = image.xen_version && !image.xen_version.startsWith("0.")
    ? `, saved by Xen ${image.xen_version}` : "";
  page.append(element("p", { class: "lead" },
    `${image.kind} image of a guest of type ${image.guest}${saved}; `,
    element("span", { class: `verdict ${image.good ? "good" : "error"}`, id: "verdict" },
      image.good ? "good" : "bad"),
    image.read === "full" ? ", every byte was read" : ", its pages were not read"));
  const facts = [["size", bytes(image.bytes)]];
  if (image.compression) facts.push(["compression", image.compression]);
  const memory = description.memory;
  if (memory) {
    facts.push(["memory", bytes(memory.bytes)], ["frames that exist", count(memory.existing)],
      ["highest frame", hex(memory.highest_frame)], ["frames sent again", count(memory.sent_again)]);
  }
  if (description.checkpoints) facts.push(["checkpoints", count(description.checkpoints)]);
  const built = (description.config || {}).b_info || {};
  if (built.max_vcpus !== undefined) facts.push(["vCPUs", String(built.max_vcpus)]);
  page.append(element("dl", { class: "facts" }, ...facts.map(([term, value]) =>
    element("div", {}, element("dt", {}, term), element("dd", {}, value)))));
}
function findings() {
  if (!description.findings.length) return;
  section("Findings", "findings").append(table(["severity", "finding", "where", "what"],
    description.findings.map((finding) => [[finding.severity, finding.severity], finding.id,
      finding.record || (finding.offset === null ? "" : hex(finding.offset)), finding.message])));
}

// -- the map

// Draws the map and returns how many frames of each type it drew.
function drawMap(canvas, map, end) {
  const rows = Math.max(Math.ceil(map.cells / COLUMNS), 1);
  const side = Math.max(8, Math.min(32, Math.floor(96 / rows)));
  canvas.width = COLUMNS * side;
  canvas.height = rows * side;
  const context = canvas.getContext("2d");
  const totals = {};
  const paint = (cell, content) => {
    const x = (cell % COLUMNS) * side, y = Math.floor(cell / COLUMNS) * side;
    const inside = Math.min(map.frames_per_cell, end - cell * map.frames_per_cell);
    const named = Object.values(content).reduce((sum, frames) => sum + frames, 0);
    const parts = Object.entries(content);
    if (inside > named) parts.push([NEVER_NAMED, inside - named]);
    let left = x;
    for (const [type, frames] of parts) {
      totals[type] = (totals[type] || 0) + frames;
      const width = side * frames / inside;
      context.fillStyle = TYPE_COLOURS[type] || HATCH;
      context.fillRect(left, y, width, side - (side > 3 ? 1 : 0));
      left += width;
    }
  };
  let next = 0;
  for (const [first, cells, content] of map.runs) {
    for (; next < first; next += 1) paint(next, {});
    for (; next < first + cells; next += 1) paint(next, content);
  }
  for (; next < map.cells; next += 1) paint(next, {});
  return totals;
}
function contentOf(map, cell) {
  const run = map.runs.find(([first, cells]) => first <= cell && cell < first + cells);
  return run ? run[2] : {};
}
function memoryMap() {
  const memory = description.memory;
  if (!memory || !memory.map.cells) return;
  const map = memory.map, end = memory.map.end;
  const part = section("Memory by frame and type", "map");
  const canvas = element("canvas", { role: "img", "aria-label": "map of guest memory" });
  const each = map.frames_per_cell;
  const hint = element("p", { class: "hint", "aria-live": "polite" });
  const explain = () => { hint.textContent = each === 1 ? "each square is a frame of 4 KiB" :
    `each square is ${count(each)} frames, ${bytes(each * 4096)}; from left to right, then down`; };
  const totals = drawMap(canvas, map, end);
  canvas.addEventListener("mousemove", (event) => {
    const box = canvas.getBoundingClientRect();
    const column = Math.min(Math.floor((event.clientX - box.left) / box.width * COLUMNS), COLUMNS - 1);
    const rows = Math.max(Math.ceil(map.cells / COLUMNS), 1);
    const cell = Math.floor((event.clientY - box.top) / box.height * rows) * COLUMNS + column;
    if (cell < 0 || cell >= map.cells) { explain(); return; }
    const content = Object.entries(contentOf(map, cell)).map(([type, frames]) => `${count(frames)} ${type}`);
    hint.textContent = `frames ${range(cell * each, each)}: ${content.join(", ") || NEVER_NAMED}`;
  });
  canvas.addEventListener("mouseleave", explain);
  explain();
  const legend = element("ul", { class: "legend", id: "legend" }, ...Object.entries(totals).map(
    ([type, frames]) => element("li", { "data-type": type, "data-frames": frames },
      swatch(TYPE_COLOURS[type] || HATCH), `${type}: ${count(frames)}`)));
  part.append(canvas, hint, legend);
  part.append(folded("Ranges of frames that exist",
    `${count(memory.ranges.length)}${memory.ranges_complete ? "" : " and more"}`,
    table(["frames", ["number", "number"], "type"], memory.ranges.map((one) =>
      [[range(one.first, one.frames), "value"], number(one.frames), one.type]))));
}

// -- the rounds

function rounds() {
  const memory = description.memory;
  if (!memory || !memory.rounds.length) return;
  const part = section("Frames sent, by iteration or checkpoint", "rounds");
  const all = memory.rounds;
  const most = Math.max(...all.map((one) => one.frames), 1);
  const width = 1000, height = 180, step = width / all.length;
  const bars = shape("svg", { viewBox: `0 0 ${width} ${height + 18}`, role: "img",
    "aria-label": "frames sent in each round", id: "bars" });
  all.forEach((one, index) => {
    const title = `round ${index}${one.checkpoint ? `, checkpoint ${one.checkpoint}` : ""}: ` +
      `${count(one.frames)} frames, ${count(one.pages)} with contents`;
    const group = shape("g", { "data-frames": one.frames, "data-pages": one.pages }, title);
    for (const [value, colour] of [[one.frames, "#b8bfc6"],
      [one.pages, one.checkpoint ? "#4c78c8" : "#2a9d8f"]]) {
      const tall = value ? Math.max(height * value / most, 1) : 0;
      group.append(shape("rect", { x: index * step + step * 0.1, y: height - tall,
        width: Math.max(step * 0.8, 0.2), height: tall, fill: colour }));
    }
    bars.append(group);
  });
  const label = shape("text", { x: 4, y: height + 14 });
  label.textContent = `${all.length === 1 ? "1 round" : `${count(all.length)} rounds`}, the largest of ${count(most)} frames`;
  bars.append(label);
  part.append(bars, element("ul", { class: "legend" },
    element("li", {}, swatch("#2a9d8f"), "with contents"),
    element("li", {}, swatch("#4c78c8"), "with contents, after a checkpoint"),
    element("li", {}, swatch("#b8bfc6"), "only named")));
  part.append(folded("Rounds", count(all.length), table(
    ["round", "checkpoint", ["frames", "number"], ["with contents", "number"], "libxc records"],
    all.map((one, index) => [String(index), one.checkpoint ? String(one.checkpoint) : "",
      number(one.frames), number(one.pages), `${one.first_record}-${one.last_record}`]))));
}

// -- the records

function timeline() {
  const { stretches, left_out } = description.timeline;
  if (!stretches.length) return;
  const part = section("Records", "records");
  const colours = new Map();
  const named = (one) => `${one.layer} ${one.name}`;
  for (const one of stretches) {
    if (!colours.has(named(one))) {
      colours.set(named(one), RECORD_COLOURS[colours.size % RECORD_COLOURS.length]);
    }
  }
  const start = stretches[0].offset, end = stretches[stretches.length - 1].end;
  const width = 1000;
  const lanes = shape("svg", { viewBox: `0 0 ${width} 104`, role: "img",
    "aria-label": "timeline of records", id: "timeline" });
  const caption = (y, text) => {
    const made = shape("text", { x: 4, y });
    made.textContent = text;
    lanes.append(made);
  };
  caption(12, "by order: each stretch of records of one type");
  caption(64, "by size: where they lie in the image");
  stretches.forEach((one, index) => {
    const records = one.last - one.first + 1;
    const title = `${named(one)}: ${records === 1 ? `record ${one.first}` :
      `records ${one.first}-${one.last}`}, offset ${hex(one.offset)}, ${bytes(one.bytes)}`;
    const fill = colours.get(named(one));
    lanes.append(shape("rect", { x: index * width / stretches.length, y: 18,
      width: width / stretches.length, height: 28, fill, "data-record": named(one) }, title));
    const left = (one.offset - start) / Math.max(end - start, 1) * width;
    const size = (one.end - one.offset) / Math.max(end - start, 1) * width;
    lanes.append(shape("rect", { x: left, y: 70, width: Math.max(size, 1), height: 28, fill }, title));
  });
  part.append(lanes, element("ul", { class: "legend" }, ...[...colours].map(([name, colour]) =>
    element("li", {}, swatch(colour), name))));
  if (left_out) part.append(element("p", { class: "hint" },
    `${count(left_out)} records further on are not shown`));
  part.append(folded("Records in their order", `${count(stretches.length)} stretches`, table(
    ["record", "numbers", "offset", ["bytes", "number"]],
    stretches.map((one) => [named(one), one.first === one.last ? String(one.first) :
      `${one.first}-${one.last}`, [hex(one.offset), "value"], number(one.bytes)]))));
}

// -- the tables

const isTree = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
function leaves(value, path = []) {
  if (!isTree(value)) return [[path.join(" / "), value]];
  return Object.entries(value).flatMap(([key, inner]) => leaves(inner, [...path, key]));
}
function shown(value) {
  if (Array.isArray(value)) {
    return value.map((item) => isTree(item)
      ? leaves(item).map(([path, leaf]) => `${path}: ${shown(leaf)}`).join(", ") : shown(item))
      .join(value.some(isTree) ? "; " : " ");
  }
  return value === null ? "" : String(value);
}
function tree(title, value, open = false) {
  const groups = isTree(value) ? Object.entries(value).filter(([, inner]) => isTree(inner)) : [];
  const flat = isTree(value) ? Object.entries(value).filter(([, inner]) => !isTree(inner)) : [];
  if (groups.length > 1 && title !== "cpuid") {
    const box = element("div");
    if (flat.length) box.append(table(["name", "value"], flat.map(([key, inner]) => [key, [shown(inner), "value"]])));
    groups.forEach(([key, inner]) => box.append(tree(key, inner)));
    return folded(title, `${count(Object.keys(value).length)} entries`, box, open);
  }
  const rows = leaves(value).map(([path, leaf]) => [path, [shown(leaf), "value"]]);
  return folded(title, rows.length === 1 ? "1 value" : `${count(rows.length)} values`,
    table(["name", "value"], rows), open);
}
function tables() {
  const part = section("Decoded", "decoded");
  for (const [kind, value] of Object.entries(description.state)) part.append(tree(kind, value));
  part.append(tree("headers", description.headers));
  if (description.config) part.append(tree("configuration", description.config));
  if (description.left_out.length) part.append(element("p", { class: "hint" },
    "Left out, as there was no room: " + description.left_out.join("; ")));
}

heading();
findings();
memoryMap();
rounds();
timeline();
tables();
document.documentElement.setAttribute("data-drawn", "yes");
})();
