// Draws boxes over an image: into an SVG on the page, or onto a canvas for a file.
const SVG = "http://www.w3.org/2000/svg";
const CROWD = 30; // CSS pixels of width for each box: with more boxes only the highlighted one has its name
const CANVAS_PIXELS = 16e6; // phones allow no larger canvas

const seen = []; // labels in the order of appearance: the first classes have the most different colours

/** The colour of a class; all are bright enough for dark text. */
export function colour(label) {
  if (!seen.includes(label)) seen.push(label);
  return `oklch(0.84 0.16 ${((seen.indexOf(label) * 137.508 + 70) % 360).toFixed(1)})`;
}

export function percent(score) {
  return `${Math.floor(score * 100)} %`;
}

function element(name, attributes, parent) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  parent.append(node);
  return node;
}

/** Largest first, so that a small box lies over a large one around it. */
function order(detections) {
  const area = ({ box: [x1, y1, x2, y2] }) => (x2 - x1) * (y2 - y1);
  return [...detections].sort((a, b) => area(b) - area(a));
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
  const unit = width / Math.max(1, shown);
  const sorted = order(detections);
  if (highlighted !== null) sorted.sort((a, b) => (a.index === highlighted) - (b.index === highlighted));
  for (const { box: [x1, y1, x2, y2], label, name, score, index } of sorted) {
    const group = element("g", { "data-index": index, class: index === highlighted ? "highlighted" : "" }, svg);
    const rect = { x: x1, y: y1, width: x2 - x1, height: y2 - y1 };
    element("rect", { ...rect, class: "halo" }, group);
    element("rect", { ...rect, class: "side", stroke: colour(label) }, group);
    if (detections.length > shown / CROWD && index !== highlighted) continue;
    const size = (shown < 500 ? 11 : 13) * unit;
    const chip = element("rect", { class: "chip" }, group);
    chip.style.fill = colour(label);
    const text = element("text", { "font-size": size }, group);
    text.textContent = `${name} ${percent(score)}`;
    const wide = text.getComputedTextLength() + 0.7 * size;
    const left = Math.max(0, Math.min(x1, width - wide));
    const top = y1 >= 1.45 * size ? y1 - 1.45 * size : Math.min(y1, height - 1.45 * size);
    for (const [key, value] of Object.entries({ x: left, y: top, width: wide, height: 1.45 * size })) chip.setAttribute(key, value);
    text.setAttribute("x", left + 0.35 * size);
    text.setAttribute("y", top + 1.07 * size);
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
  const unit = Math.max(1, Math.max(canvas.width, canvas.height) / 900);
  const size = 13 * unit;
  pen.font = `600 ${size}px system-ui, sans-serif`;
  pen.textBaseline = "middle";
  for (const { box, label, name, score } of order(detections)) {
    const [x1, y1, x2, y2] = box.map((side) => side * scale);
    for (const [wide, ink] of [[4.5, "rgb(0 0 0 / .6)"], [2.4, colour(label)]]) {
      pen.lineWidth = wide * unit;
      pen.strokeStyle = ink;
      pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
    }
    const text = `${name} ${percent(score)}`;
    const wide = pen.measureText(text).width + 0.7 * size;
    const left = Math.max(0, Math.min(x1, canvas.width - wide));
    const top = y1 >= 1.45 * size ? y1 - 1.45 * size : Math.min(y1, canvas.height - 1.45 * size);
    pen.fillStyle = colour(label);
    pen.fillRect(left, top, wide, 1.45 * size);
    pen.fillStyle = "#101216";
    pen.fillText(text, left + 0.35 * size, top + 0.75 * size);
  }
  return new Promise((done, failed) => {
    canvas.toBlob((blob) => (blob ? done(blob) : failed(new Error("the browser could not make the image"))), "image/png");
  });
}
