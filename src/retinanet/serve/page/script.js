// Each image is asked for once, with a low threshold; the slider and the filter choose among what came back.
import { colour, drawn, overlay, percent } from "./drawing.js";

const $ = (id) => document.getElementById(id);
const LOW = 0.05; // what the slider can reach down to
const KEPT = 24; // images in the strip
const NAMED = 12; // classes named at the top

let server = { classes: [], threshold: 0.3, least_threshold: 0, max_megabytes: Infinity };
let entries = []; // {file, url, name, state: "waiting" | "done" | "failed", answer, error, seen}
let current = null;
let lit = null;
const off = new Set(); // labels that are not to be shown
let spoken = 0;

// ------------------------------------------------------------------------------------------------- the server

/** The token is kept for this tab; a server that wants none takes no notice of it. */
const token = () => sessionStorage.getItem("token");
const headers = () => (token() ? { Authorization: `Bearer ${token()}` } : {});

/** Without the right token /health tells whether the server is ready, and nothing of its model. */
async function meet() {
  let said;
  try {
    said = await (await fetch("health", { headers: headers() })).json();
  } catch {
    complain("The server does not answer. Is it still running?");
    return;
  }
  const stranger = said.model === undefined;
  $("door").hidden = !stranger;
  $("drop").hidden = stranger;
  if (stranger) {
    complain(token() ? "The server does not take this token." : "");
    sessionStorage.removeItem("token");
    $("token").focus();
    return;
  }
  complain("");
  server = said;
  $("model").textContent = server.model;
  document.title = `${server.model}: find objects in an image`;
  const { classes } = server;
  const more = classes.length > NAMED ? ` and ${classes.length - NAMED} more` : "";
  $("knows").textContent = `Finds ${classes.slice(0, NAMED).join(", ")}${more}.`;
  const own = Math.round(server.threshold * 100);
  $("threshold").min = Math.floor(low() * 100);
  $("threshold").value = own;
  $("own").textContent = `The model's own threshold is ${own} %.`;
  show();
}

const low = () => Math.max(server.least_threshold, Math.min(LOW, server.threshold));

async function ask(entry) {
  if (entry.file.size > server.max_megabytes * 1e6) {
    throw new Error(`it has ${(entry.file.size / 1e6).toFixed(1)} MB, and the server takes ${server.max_megabytes} MB`);
  }
  const form = new FormData();
  form.append("images", entry.file, entry.name);
  let response;
  try {
    response = await fetch(`predict?threshold=${low()}`, { method: "POST", body: form, headers: headers() });
  } catch {
    throw new Error("the server does not answer. Is it still running?");
  }
  if (response.status === 401) meet(); // the server was started again, with another token
  const said = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error((said.error ?? `the server answered ${response.status}`).replace(`${entry.name}: `, ""));
  return said.images[0];
}

// ------------------------------------------------------------------------------------------------- images come

async function take(files) {
  complain("");
  if (!$("door").hidden) return;
  const images = [...files];
  if (!images.length) return complain("There was no image in that. Drop or paste an image file.");
  const added = images.map((file) => {
    const name = file.name || "pasted image";
    return { file, name, url: URL.createObjectURL(file), state: "waiting", answer: null, error: "", seen: false };
  });
  entries.push(...added);
  while (entries.length > KEPT && !added.includes(entries[0])) URL.revokeObjectURL(entries.shift().url);
  document.body.classList.add("some");
  choose(added[0]);
  for (const entry of added) {
    try {
      entry.answer = await ask(entry);
      entry.answer.detections.forEach((found, place) => (found.place = place));
      entry.state = "done";
    } catch (error) {
      entry.state = "failed";
      entry.error = `${entry.name} could not be used: ${error.message}.`.replace(/([.?])\.$/, "$1");
    }
    if (entry === current) choose(entry);
    else strip();
  }
}

function choose(entry) {
  const another = entry !== current;
  current = entry;
  lit = null;
  if (another) {
    const image = $("image");
    image.onload = () => {
      entry.seen = true;
      $("stage").classList.remove("unseen");
      frame(image.naturalWidth, image.naturalHeight);
      if (entry === current) show();
    };
    image.onerror = () => {
      $("stage").classList.add("unseen");
      if (entry === current) show();
    };
    image.src = entry.url;
  }
  complain(entry.error);
  strip();
  show();
}

// ------------------------------------------------------------------------------------------------- what is shown

const threshold = () => Number($("threshold").value) / 100;
const sure = () => (current?.answer?.detections ?? []).filter((found) => found.score > threshold());
const visible = () => sure().filter((found) => !off.has(found.label));

function show() {
  $("threshold-value").textContent = `${$("threshold").value} %`;
  $("threshold").setAttribute("aria-valuetext", `${$("threshold").value} percent`);
  $("work").hidden = !current || current.state === "failed";
  if (!current) return;
  const { answer } = current;
  $("work").setAttribute("aria-busy", String(current.state === "waiting"));
  for (const id of ["save-json", "save-image"]) $(id).disabled = !answer;
  if (answer && $("stage").classList.contains("unseen")) place(answer);
  $("caption").textContent = answer ? `${current.name}, ${answer.width} × ${answer.height} pixels${unseen()}` : current.name;
  filter();
  list();
  boxes();
  say();
}

const unseen = () => ($("stage").classList.contains("unseen") ? "; this browser cannot show this kind of file, the boxes are right all the same" : "");

function frame(width, height) {
  $("stage").style.setProperty("--ratio", width / height);
  $("stage").style.setProperty("--pixels", width);
}

/** An image that the browser cannot show leaves a blank of its size. */
function place({ width, height }) {
  frame(width, height);
  const blank = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}"/>`;
  const address = `data:image/svg+xml,${encodeURIComponent(blank)}`;
  const image = $("image");
  if (image.src === address) return;
  image.onload = () => boxes();
  image.onerror = null;
  image.src = address;
}

function filter() {
  const counts = new Map();
  for (const { label } of current.answer?.detections ?? []) counts.set(label, 0);
  for (const { label } of sure()) counts.set(label, counts.get(label) + 1);
  // In the order of the answer, surest first: rows do not jump while the slider moves.
  const rows = [...counts].map(([label, count]) => {
    const row = document.createElement("label");
    row.className = count ? "" : "zero";
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = !off.has(label);
    box.value = label;
    const dot = document.createElement("span");
    dot.className = "dot";
    dot.style.background = colour(label);
    const number = document.createElement("b");
    number.textContent = count;
    row.append(box, dot, server.classes[label] ?? label, number);
    return row;
  });
  const had = document.activeElement?.closest?.("#classes") ? document.activeElement.value : null;
  $("classes").replaceChildren(...rows);
  if (had !== null) $("classes").querySelector(`input[value="${had}"]`)?.focus();
  $("filter").hidden = !rows.length;
}

function list() {
  const rows = visible().map(({ label, name, score, place, box }) => {
    const row = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.place = place;
    button.setAttribute("aria-label", `${name}, ${percent(score)}, ${where(box)}`);
    button.innerHTML = '<span class="dot"></span><span></span><span class="bar"><i></i></span><span class="score"></span>';
    const [dot, what, bar, number] = button.children;
    dot.style.background = colour(label);
    what.textContent = name;
    bar.firstChild.style.width = `${score * 100}%`;
    number.textContent = percent(score);
    row.append(button);
    return row;
  });
  $("found").replaceChildren(...rows);
  $("count").textContent = current.answer ? rows.length : "";
}

/** Where a box lies, for who does not see it. */
function where([x1, y1, x2, y2]) {
  const { width, height } = current.answer;
  const x = (x1 + x2) / 2 / width, y = (y1 + y2) / 2 / height;
  const part = (value, low, high) => (value < 1 / 3 ? low : value > 2 / 3 ? high : "");
  const words = [part(y, "top", "bottom"), part(x, "left", "right")].filter(Boolean).join(" ") || "in the middle";
  return `${words}, ${Math.round(x2 - x1)} by ${Math.round(y2 - y1)} pixels`;
}

function boxes() {
  const { answer } = current ?? {};
  if (!answer) return $("boxes").replaceChildren();
  overlay($("boxes"), visible(), answer.width, answer.height, $("stage").clientWidth, lit);
}

function light(place) {
  if (lit === place) return;
  lit = place;
  boxes();
  for (const button of $("found").querySelectorAll("button")) {
    const on = Number(button.dataset.place) === place;
    button.classList.toggle("lit", on);
    if (on) {
      const list = $("found"), row = button.getBoundingClientRect(), frame = list.getBoundingClientRect();
      if (row.top < frame.top) list.scrollTop -= frame.top - row.top;
      if (row.bottom > frame.bottom) list.scrollTop += row.bottom - frame.bottom;
    }
  }
}

function strip() {
  $("strip").hidden = entries.length < 2;
  const had = document.activeElement?.closest?.("#strip button")?.dataset.place;
  $("strip").replaceChildren(
    ...entries.map((entry, place) => {
      const row = document.createElement("li");
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.place = place;
      button.setAttribute("aria-pressed", String(entry === current));
      button.setAttribute("aria-label", `${entry.name}${entry.state === "failed" ? ", failed" : ""}`);
      const image = document.createElement("img");
      image.src = entry.url;
      image.alt = "";
      button.append(image);
      if (entry.state !== "done") {
        const mark = document.createElement("span");
        mark.textContent = entry.state === "waiting" ? "…" : "!";
        button.append(mark);
      }
      button.addEventListener("click", () => choose(entry));
      row.append(button);
      return row;
    }),
  );
  if (had !== undefined) $("strip").querySelector(`[data-place="${had}"]`)?.focus();
}

// ------------------------------------------------------------------------------------------------- in words

function complain(text) {
  $("error").textContent = text;
  $("error").hidden = !text;
}

/** The line of status is read aloud: not at each step of the slider, only where it rests. */
function say() {
  const at = ++spoken;
  const text = words();
  setTimeout(() => {
    if (at === spoken && $("status").textContent !== text) $("status").textContent = text;
  }, current.state === "waiting" ? 0 : 250);
  $("image").alt = current.answer ? `${current.name}: ${text}` : current.name;
}

function words() {
  if (current.state === "waiting") return `Looking at ${current.name} …`;
  if (current.state === "failed") return "";
  const found = visible();
  if (!found.length) {
    const weaker = current.answer.detections.length;
    return `Nothing found above ${percent(threshold() + 1e-9)}${weaker ? `; ${weaker} less sure or not chosen` : ""}.`;
  }
  const counts = new Map();
  for (const { name } of found) counts.set(name, (counts.get(name) ?? 0) + 1);
  const parts = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 6).map(([name, count]) => `${name} ${count}`);
  const rest = counts.size > 6 ? `, ${counts.size - 6} further classes` : "";
  return `${found.length} found above ${percent(threshold() + 1e-9)}: ${parts.join(", ")}${rest}.`;
}

// ------------------------------------------------------------------------------------------------- to files

function save(blob, ending) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = current.name.replace(/\.[^.]*$/, "") + ending;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function saveJson() {
  const { width, height } = current.answer;
  const detections = visible().map(({ box, score, label, name }) => ({ box, score, label, name }));
  const text = JSON.stringify({ file: current.name, model: server.model, threshold: threshold(), width, height, detections }, null, 2);
  save(new Blob([text], { type: "application/json" }), "-detections.json");
}

async function saveImage() {
  const { width, height } = current.answer;
  try {
    save(await drawn(current.seen ? $("image") : null, visible(), width, height), "-detections.png");
  } catch (error) {
    complain(`The image could not be saved: ${error.message}.`);
  }
}

// ------------------------------------------------------------------------------------------------- hands

for (const id of ["file", "camera"]) {
  $(id).addEventListener("change", ({ target }) => {
    if (target.files.length) take(target.files);
    target.value = ""; // the same file may be chosen again
  });
}
const over = (on) => document.body.classList.toggle("over", on);
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  over(true);
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) over(false);
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  over(false);
  take(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => {
  const { files } = event.clipboardData;
  if (files.length || !event.clipboardData.getData("text")) take(files);
});
$("door").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value.trim());
  $("token").value = "";
  meet();
});
$("threshold").addEventListener("input", show);
$("classes").addEventListener("change", ({ target }) => {
  off[target.checked ? "delete" : "add"](Number(target.value));
  show();
});
$("all").addEventListener("click", () => {
  off.clear();
  show();
});
$("none").addEventListener("click", () => {
  for (const { label } of current.answer.detections) off.add(label);
  show();
});
const placeOf = (node) => {
  const at = node?.closest?.("[data-place]")?.dataset.place;
  return at === undefined ? null : Number(at);
};
for (const id of ["found", "boxes"]) {
  $(id).addEventListener("pointerover", ({ target }) => light(placeOf(target)));
  $(id).addEventListener("pointerleave", () => light(placeOf(document.activeElement?.closest("#found"))));
}
$("found").addEventListener("focusin", ({ target }) => light(placeOf(target)));
$("found").addEventListener("focusout", () => light(null));
$("boxes").addEventListener("click", ({ target }) => {
  $("found").querySelector(`[data-place="${placeOf(target)}"]`)?.focus();
});
$("save-json").addEventListener("click", saveJson);
$("save-image").addEventListener("click", saveImage);
new ResizeObserver(boxes).observe($("stage"));
meet();
