// Each image is sent once, with a low threshold. The slider and the class filter then select among its detections.
import { colour, drawn, overlay, percent, setColours } from "./drawing.js";

const $ = (id) => document.getElementById(id);
const LOWEST = 0.05; // lower end of the slider
const KEPT = 24; // images in the strip
const NAMED = 12; // classes named at the top

let server = { classes: [], threshold: 0.3, least_threshold: 0, max_megabytes: Infinity };
let images = []; // {file, url, name, state: "waiting" | "done" | "failed", result, error, loaded}
let current = null;
let highlighted = null; // index of a detection
const hidden = new Set(); // labels that the filter hides
let announcements = 0;

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

// ------------------------------------------------------------------------------------------------- the server

/** The token is kept until the tab is closed; a server without a token ignores it. */
const token = () => sessionStorage.getItem("token");
const headers = () => (token() ? { Authorization: `Bearer ${token()}` } : {});

/** Without the right token /health returns the status, and nothing of the model. */
async function connect() {
  let health;
  try {
    health = await (await fetch("health", { headers: headers() })).json();
  } catch {
    showError("The server does not respond. Is it still running?");
    return;
  }
  const locked = health.model === undefined;
  $("token-form").hidden = !locked;
  $("drop").hidden = locked;
  if (locked) {
    showError(token() ? "The token is wrong." : "");
    sessionStorage.removeItem("token");
    $("token").focus();
    return;
  }
  showError("");
  server = health;
  setColours(server.colours);
  const { model, classes } = server;
  $("model").textContent = model;
  document.title = `${model}: detect objects in an image`;
  const more = classes.length > NAMED ? ` and ${classes.length - NAMED} more` : "";
  $("class-names").textContent = `Detects ${classes.slice(0, NAMED).join(", ")}${more}.`;
  const usual = Math.round(server.threshold * 100);
  $("threshold").min = Math.floor(lowest() * 100);
  $("threshold").value = usual;
  $("usual").textContent = `The model's default is ${usual} %.`;
  render();
}

const lowest = () => Math.max(server.least_threshold, Math.min(LOWEST, server.threshold));

async function predict({ file, name }) {
  if (file.size > server.max_megabytes * 1e6) {
    throw new Error(`it has ${(file.size / 1e6).toFixed(1)} MB, and the limit is ${server.max_megabytes} MB`);
  }
  const body = new FormData();
  body.append("images", file, name);
  let response;
  try {
    response = await fetch(`predict?threshold=${lowest()}`, { method: "POST", body, headers: headers() });
  } catch {
    throw new Error("the server does not respond. Is it still running?");
  }
  if (response.status === 401) connect(); // the server was restarted with another token
  const content = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error((content.error ?? `the server returned status ${response.status}`).replace(`${name}: `, ""));
  return content.images[0];
}

// ------------------------------------------------------------------------------------------------- new images

async function add(files) {
  showError("");
  if (!$("token-form").hidden) return;
  const added = [...files].map((file) => {
    const name = file.name || "pasted image";
    return { file, name, url: URL.createObjectURL(file), state: "waiting", result: null, error: "", loaded: false };
  });
  if (!added.length) return showError("There was no image in that. Drop or paste an image file.");
  images.push(...added);
  while (images.length > KEPT && !added.includes(images[0])) URL.revokeObjectURL(images.shift().url);
  document.body.classList.add("some");
  select(added[0]);
  for (const image of added) {
    try {
      image.result = await predict(image);
      image.result.detections.forEach((detection, index) => (detection.index = index));
      image.state = "done";
    } catch (error) {
      image.state = "failed";
      image.error = `${image.name} cannot be used: ${error.message}.`.replace(/([.?])\.$/, "$1");
    }
    if (image === current) select(image);
    else renderStrip();
  }
}

function select(image) {
  const changed = image !== current;
  current = image;
  highlighted = null;
  if (changed) {
    const shown = $("image");
    shown.onload = () => {
      image.loaded = true;
      $("stage").classList.remove("blank");
      setSize(shown.naturalWidth, shown.naturalHeight);
      if (image === current) render();
    };
    shown.onerror = () => {
      $("stage").classList.add("blank");
      if (image === current) render();
    };
    shown.src = image.url;
  }
  showError(image.error);
  renderStrip();
  render();
}

// ------------------------------------------------------------------------------------------------- rendering

const threshold = () => Number($("threshold").value) / 100;
const aboveThreshold = () => (current?.result?.detections ?? []).filter(({ score }) => score > threshold());
const visible = () => aboveThreshold().filter(({ label }) => !hidden.has(label));

function render() {
  $("threshold-value").textContent = `${$("threshold").value} %`;
  $("threshold").setAttribute("aria-valuetext", `${$("threshold").value} percent`);
  $("work").hidden = !current || current.state === "failed";
  if (!current) return;
  const { name, result, state } = current;
  $("work").setAttribute("aria-busy", String(state === "waiting"));
  for (const id of ["save-json", "save-image"]) $(id).disabled = !result;
  const blank = $("stage").classList.contains("blank");
  if (result && blank) showBlank(result);
  const note = blank ? "; this browser cannot show this format, but the boxes are right" : "";
  $("caption").textContent = result ? `${name}, ${result.width} × ${result.height} pixels${note}` : name;
  renderClasses();
  renderList();
  renderBoxes();
  announce();
}

function setSize(width, height) {
  $("stage").style.setProperty("--ratio", width / height);
  $("stage").style.setProperty("--pixels", width);
}

/** Show an empty image of the same size where the browser does not know the format. */
function showBlank({ width, height }) {
  setSize(width, height);
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}"/>`;
  const url = `data:image/svg+xml,${encodeURIComponent(svg)}`;
  const image = $("image");
  if (image.src === url) return;
  image.onload = () => renderBoxes();
  image.onerror = null;
  image.src = url;
}

function dot(label) {
  const node = element("span", { className: "dot" });
  node.style.background = colour(label);
  return node;
}

function renderClasses() {
  const counts = new Map();
  for (const { label } of current.result?.detections ?? []) counts.set(label, 0);
  for (const { label } of aboveThreshold()) counts.set(label, counts.get(label) + 1);
  // In the order of the highest scores, so that rows do not jump while the slider moves.
  const rows = [...counts].map(([label, count]) =>
    element("label", { className: count ? "" : "zero" },
      element("input", { type: "checkbox", checked: !hidden.has(label), value: label }),
      dot(label), server.classes[label] ?? label, element("b", { textContent: count })));
  const focused = document.activeElement?.closest?.("#classes") ? document.activeElement.value : null;
  $("classes").replaceChildren(...rows);
  if (focused !== null) $("classes").querySelector(`input[value="${focused}"]`)?.focus();
  $("filter").hidden = !rows.length;
}

function renderList() {
  const rows = visible().map(({ label, name, score, index, box }) => {
    const bar = element("i");
    bar.style.width = `${score * 100}%`;
    const button = element("button", { type: "button", ariaLabel: `${name}, ${percent(score)}, ${position(box)}` },
      dot(label), element("span", { textContent: name }), element("span", { className: "bar" }, bar),
      element("span", { className: "score", textContent: percent(score) }));
    button.dataset.index = index;
    return element("li", {}, button);
  });
  $("detections").replaceChildren(...rows);
  $("count").textContent = current.result ? rows.length : "";
}

/** The position of a box in words, for screen readers. */
function position([x1, y1, x2, y2]) {
  const { width, height } = current.result;
  const third = (value, low, high) => (value < 1 / 3 ? low : value > 2 / 3 ? high : "");
  const words = [third((y1 + y2) / 2 / height, "top", "bottom"), third((x1 + x2) / 2 / width, "left", "right")];
  return `${words.filter(Boolean).join(" ") || "in the middle"}, ${Math.round(x2 - x1)} by ${Math.round(y2 - y1)} pixels`;
}

function renderBoxes() {
  const { result } = current ?? {};
  if (!result) return $("boxes").replaceChildren();
  overlay($("boxes"), visible(), result.width, result.height, $("stage").clientWidth, highlighted);
}

function highlight(index) {
  if (highlighted === index) return;
  highlighted = index;
  renderBoxes();
  const list = $("detections");
  for (const button of list.querySelectorAll("button")) {
    const on = Number(button.dataset.index) === index;
    button.classList.toggle("highlighted", on);
    if (on) {
      const row = button.getBoundingClientRect(), frame = list.getBoundingClientRect();
      if (row.top < frame.top) list.scrollTop -= frame.top - row.top;
      if (row.bottom > frame.bottom) list.scrollTop += row.bottom - frame.bottom;
    }
  }
}

function renderStrip() {
  $("strip").hidden = images.length < 2;
  const focused = document.activeElement?.closest?.("#strip button")?.dataset.index;
  const rows = images.map((image, index) => {
    const button = element("button", {
      type: "button",
      ariaPressed: String(image === current),
      ariaLabel: `${image.name}${image.state === "failed" ? ", failed" : ""}`,
      onclick: () => select(image),
    }, element("img", { src: image.url, alt: "" }));
    if (image.state !== "done") button.append(element("span", { textContent: image.state === "waiting" ? "…" : "!" }));
    button.dataset.index = index;
    return element("li", {}, button);
  });
  $("strip").replaceChildren(...rows);
  if (focused !== undefined) $("strip").querySelector(`[data-index="${focused}"]`)?.focus();
}

// ------------------------------------------------------------------------------------------------- text

function showError(text) {
  $("error").textContent = text;
  $("error").hidden = !text;
}

/** Screen readers read the status aloud: so it changes only when the slider rests. */
function announce() {
  const number = ++announcements;
  const text = summary();
  setTimeout(() => {
    if (number === announcements && $("status").textContent !== text) $("status").textContent = text;
  }, current.state === "waiting" ? 0 : 250);
  $("image").alt = current.result ? `${current.name}: ${text}` : current.name;
}

function summary() {
  if (current.state === "waiting") return `Detecting objects in ${current.name} …`;
  if (current.state === "failed") return "";
  const detections = visible();
  const limit = percent(threshold() + 1e-9);
  if (!detections.length) {
    const others = current.result.detections.length;
    return `No detections above ${limit}${others ? `; ${others} below it or of hidden classes` : ""}.`;
  }
  const counts = new Map();
  for (const { name } of detections) counts.set(name, (counts.get(name) ?? 0) + 1);
  const parts = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 6).map(([name, count]) => `${name} ${count}`);
  const rest = counts.size > 6 ? `, ${counts.size - 6} further classes` : "";
  return `${detections.length} detections above ${limit}: ${parts.join(", ")}${rest}.`;
}

// ------------------------------------------------------------------------------------------------- saving

function save(blob, ending) {
  const link = element("a", { href: URL.createObjectURL(blob), download: current.name.replace(/\.[^.]*$/, "") + ending });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function saveJson() {
  const { width, height } = current.result;
  const detections = visible().map(({ box, score, label, name }) => ({ box, score, label, name }));
  const content = { file: current.name, model: server.model, threshold: threshold(), width, height, detections };
  save(new Blob([JSON.stringify(content, null, 2)], { type: "application/json" }), "-detections.json");
}

async function saveImage() {
  const { width, height } = current.result;
  try {
    save(await drawn(current.loaded ? $("image") : null, visible(), width, height), "-detections.png");
  } catch (error) {
    showError(`The image could not be saved: ${error.message}.`);
  }
}

// ------------------------------------------------------------------------------------------------- events

const on = (id, event, listener) => $(id).addEventListener(event, listener);
for (const id of ["file", "camera"]) {
  on(id, "change", ({ target }) => {
    if (target.files.length) add(target.files);
    target.value = ""; // so that the same file can be chosen again
  });
}
const dragging = (active) => document.body.classList.toggle("over", active);
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  dragging(true);
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) dragging(false);
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  dragging(false);
  add(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => {
  const { files } = event.clipboardData;
  if (files.length || !event.clipboardData.getData("text")) add(files);
});
on("token-form", "submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value.trim());
  $("token").value = "";
  connect();
});
on("threshold", "input", render);
on("classes", "change", ({ target }) => {
  hidden[target.checked ? "delete" : "add"](Number(target.value));
  render();
});
on("all", "click", () => {
  hidden.clear();
  render();
});
on("none", "click", () => {
  for (const { label } of current.result.detections) hidden.add(label);
  render();
});
const indexOf = (node) => {
  const index = node?.closest?.("[data-index]")?.dataset.index;
  return index === undefined ? null : Number(index);
};
for (const id of ["detections", "boxes"]) {
  on(id, "pointerover", ({ target }) => highlight(indexOf(target)));
  on(id, "pointerleave", () => highlight(indexOf(document.activeElement?.closest("#detections"))));
}
on("detections", "focusin", ({ target }) => highlight(indexOf(target)));
on("detections", "focusout", () => highlight(null));
on("boxes", "click", ({ target }) => $("detections").querySelector(`[data-index="${indexOf(target)}"]`)?.focus({ preventScroll: true }));
on("save-json", "click", saveJson);
on("save-image", "click", saveImage);
new ResizeObserver(renderBoxes).observe($("stage"));
connect();
