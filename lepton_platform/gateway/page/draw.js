// Boxes over a picture. They are in pixels of the picture as it is displayed, whatever size it is shown at.

const COLOURS = ["#ffd500", "#00c8ff", "#ff5c8a", "#7dff5c", "#ff9f43", "#b58cff"]; // a label each, as the services draw
const ROOM_PX = [560, 640]; // width and height to which smaller pictures are enlarged
const SQUARES = 4; // times; from here on a pixel is shown as a square
const MOST_TAGS = 40; // more numbers would cover what they are about

/** A picture with a canvas over it; `paint(boxes, chosen)` draws, again whenever its size changes. */
export class Drawing {
  #boxes = [];
  #chosen = null;
  #canvas = document.createElement("canvas");

  constructor(address, name, labels) {
    this.labels = labels;
    this.picture = document.createElement("img");
    this.picture.alt = name;
    this.node = document.createElement("div");
    this.node.className = "frame";
    this.node.append(this.picture, this.#canvas);
    this.#canvas.setAttribute("aria-hidden", "true"); // the list beside says it all
    this.picture.addEventListener("load", () => this.#fit());
    this.picture.addEventListener("error", () => this.#blank());
    new ResizeObserver(() => this.#draw()).observe(this.picture);
    this.picture.src = address;
  }

  paint(boxes, chosen = null) {
    this.#boxes = boxes;
    this.#chosen = chosen;
    this.#draw();
  }

  #fit() {
    const { naturalWidth: width, naturalHeight: height } = this.picture;
    const times = Math.max(1, Math.min(ROOM_PX[0] / width, ROOM_PX[1] / height));
    this.picture.style.width = `${width * times}px`;
    this.picture.classList.toggle("enlarged", times >= SQUARES);
    this.#draw();
  }

  #blank() {
    const words = document.createElement("p");
    words.className = "blank";
    words.textContent = "This browser cannot show files of this kind; the service can read them.";
    this.node.replaceChildren(words);
  }

  #draw() {
    const { naturalWidth, clientWidth, clientHeight } = this.picture;
    if (!naturalWidth || !clientWidth) return;
    const density = window.devicePixelRatio || 1;
    this.#canvas.width = Math.round(clientWidth * density);
    this.#canvas.height = Math.round(clientHeight * density);
    const context = this.#canvas.getContext("2d");
    context.scale(density, density);
    const scale = clientWidth / naturalWidth; // screen pixels a pixel of the picture
    this.#boxes.forEach((found, index) => this.#box(context, found, index, scale, false));
    if (this.#chosen !== null && this.#boxes[this.#chosen]) {
      this.#box(context, this.#boxes[this.#chosen], this.#chosen, scale, true);
    }
  }

  #box(context, found, index, scale, chosen) {
    const [left, top, right, bottom] = found.box.map((value) => value * scale);
    const colour = COLOURS[Math.max(0, this.labels.indexOf(found.label)) % COLOURS.length];
    const lines = chosen ? [["#000", 7], ["#fff", 5], [colour, 3]] : [["rgb(0 0 0 / 55%)", 3.5], [colour, 1.75]];
    for (const [style, width] of lines) {
      context.strokeStyle = style;
      context.lineWidth = width;
      context.strokeRect(left, top, right - left, bottom - top);
    }
    if (chosen || this.#boxes.length <= MOST_TAGS) tag(context, String(index + 1), left, top, colour);
  }
}

/** A number at the box's upper left corner: above it, or inside where there is no room above. */
function tag(context, text, left, top, colour) {
  context.font = "600 12px system-ui, sans-serif";
  const width = context.measureText(text).width + 8, height = 17;
  const y = top >= height ? top - height : top;
  context.fillStyle = colour;
  context.fillRect(left - 1, y, width, height);
  context.fillStyle = "#000";
  context.fillText(text, left + 3, y + 13);
}
