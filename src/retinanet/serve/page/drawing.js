// Draws labelled boxes over an image, in the style of the files that retinanet predict writes: into an SVG on the page,
// or onto a canvas for a file. All lines come before all labels, and a label stands where it hides no other one.
const SVG = "http://www.w3.org/2000/svg";
const CANVAS_PIXELS = 16e6; // phones allow no larger canvas
const CROWD = 30; // CSS pixels of width for each box: with more boxes labels have no score but the highlighted one's
const HIDDEN = 0.03; // the largest share of a label that another one may hide
const BRIGHT = 0.27; // relative luminance from which black text is easier to read than white text

let colours = [];

/** Take the colour of each class, #rrggbb, from the server. */
export function setColours(list) {
  colours = list;
}

export function colour(label) {
  return colours[label] ?? "#777777";
}

/** Black or white, whichever is easier to read on a colour. */
export function textColour(back) {
  const [red, green, blue] = [1, 3, 5]
    .map((start) => parseInt(back.slice(start, start + 2), 16) / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > BRIGHT ? "#101216" : "#ffffff";
}

export function percent(score) {
  return `${Math.floor(score * 100)} %`;
}

const nameAndScore = ({ name, score }) => `${name} ${percent(score)}`;

function element(name, attributes, parent) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  parent.append(node);
  return node;
}

/** Lowest score first, so that the highest-scoring one lies on top; the highlighted one last. */
function order(detections, highlighted = null) {
  return [...detections].sort((a, b) => (a.index === highlighted) - (b.index === highlighted) || a.score - b.score);
}

/** Left and top of a label: above the box, inside it at the top, below it, inside it at the bottom. */
function* positions([x1, y1, x2, y2], wide, high) {
  for (const y of [y1 - high, y1, y2, y2 - high]) {
    for (const x of [x1, x2 - wide, (x1 + x2 - wide) / 2]) yield [x, y];
  }
}

const shared = (a, b) =>
  Math.max(0, Math.min(a.right, b.right) - Math.max(a.left, b.left)) *
  Math.max(0, Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top));

/** Where a label hides no other one, or hides least; null where it hides too much. */
function freeArea(box, wide, high, width, height, taken) {
  let best = null, least = HIDDEN;
  for (const [x, y] of positions(box, wide, high)) {
    const left = Math.max(0, Math.min(x, width - wide)), top = Math.max(0, Math.min(y, height - high));
    const area = { left, top, right: left + wide, bottom: top + high };
    const hidden = taken.reduce((sum, other) => sum + shared(area, other), 0) / (wide * high);
    if (hidden < least) [best, least] = [area, hidden];
    if (!hidden) break;
  }
  return best;
}

/**
 * Areas of the labels, the highest-scoring one placed first.
 * @param sorted detections in the order of drawing. @param box of a detection. @param measure width of its label's text.
 * @param size of the letters, in the units of width and height.
 */
function placed(sorted, box, measure, size, width, height) {
  const areas = new Map(), taken = [];
  for (const detection of [...sorted].reverse()) {
    const wide = measure(detection) + 0.6 * size;
    const area = freeArea(box(detection), wide, 1.35 * size, width, height, taken);
    if (area) taken.push(area);
    areas.set(detection, area);
  }
  return areas;
}

/**
 * Draw into an SVG that lies over the image.
 * @param detections each with its `index` in the response, which becomes data-index.
 * @param shown width in CSS pixels of the shown image, so that names have the same size for all images.
 * @param highlighted index of the highlighted detection, or null.
 */
export function overlay(svg, detections, width, height, shown, highlighted) {
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.classList.toggle("some-highlighted", highlighted !== null);
  svg.replaceChildren();
  const size = ((shown < 500 ? 11 : 13) * width) / Math.max(1, shown);
  const sorted = order(detections, highlighted);
  const group = (index, parts) => element("g", { "data-index": index, class: `${parts}${index === highlighted ? " highlighted" : ""}` }, svg);
  for (const { box: [x1, y1, x2, y2], label, index } of sorted) {
    element("rect", { x: x1, y: y1, width: x2 - x1, height: y2 - y1, class: "side", stroke: colour(label) }, group(index, "box"));
  }
  const ruler = element("text", { "font-size": size }, svg);
  const short = detections.length > shown / CROWD;
  const textOf = (detection) => (short && detection.index !== highlighted ? detection.name : nameAndScore(detection));
  const measure = (detection) => {
    ruler.textContent = textOf(detection);
    return ruler.getComputedTextLength();
  };
  const areas = placed(sorted, ({ box }) => box, measure, size, width, height);
  ruler.remove();
  for (const detection of sorted) {
    const area = areas.get(detection);
    if (!area) continue;
    const { left, top, right, bottom } = area, back = colour(detection.label);
    const parts = group(detection.index, "label");
    element("rect", { class: "chip", x: left, y: top, width: right - left, height: bottom - top, fill: back }, parts);
    const text = element("text", { x: left + 0.3 * size, y: top + size, "font-size": size, fill: textColour(back) }, parts);
    text.textContent = textOf(detection);
  }
}

/** The image with its boxes as a PNG, in its own size or as large as a canvas can be. */
export async function drawn(image, detections, width, height) {
  const scale = Math.min(1, Math.sqrt(CANVAS_PIXELS / (width * height)));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const pen = canvas.getContext("2d");
  if (image) pen.drawImage(image, 0, 0, canvas.width, canvas.height);
  const unit = (canvas.width * canvas.height) ** 0.375; // as in the files of retinanet predict
  const line = Math.max(1, Math.round(unit / 60));
  const size = Math.max(9, Math.round(unit / 8.2));
  pen.font = `600 ${size}px system-ui, sans-serif`;
  pen.lineWidth = line;
  const sorted = order(detections);
  const box = (detection) => detection.box.map((side) => side * scale);
  for (const detection of sorted) {
    const [x1, y1, x2, y2] = box(detection);
    pen.strokeStyle = colour(detection.label);
    pen.strokeRect(x1 + line / 2, y1 + line / 2, Math.max(0, x2 - x1 - line), Math.max(0, y2 - y1 - line));
  }
  const measure = (detection) => pen.measureText(nameAndScore(detection)).width;
  const areas = placed(sorted, box, measure, size, canvas.width, canvas.height);
  for (const detection of sorted) {
    const area = areas.get(detection);
    if (!area) continue;
    pen.fillStyle = colour(detection.label);
    pen.fillRect(area.left, area.top, area.right - area.left, area.bottom - area.top);
    pen.fillStyle = textColour(colour(detection.label));
    pen.fillText(nameAndScore(detection), area.left + 0.3 * size, area.top + size);
  }
  return new Promise((done, failed) => {
    canvas.toBlob((blob) => (blob ? done(blob) : failed(new Error("the browser could not make the image"))), "image/png");
  });
}
