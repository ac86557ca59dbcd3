// The maps: images with the boxes of the regions over them, which are dragged, resized and drawn.

const SVG = "http://www.w3.org/2000/svg";
const OUT = ["denied", "refused", "failed", "replaced"];
const FLOWN = ["approved", "rescanned", "queued"];
const LEAST_PX = 4;

export class Maps {
  // `on` has `choose(key)`, `tick(key)`, `edit(key)`, `draft(edges)`, `keep()` and `cancel()`.
  constructor(root, on) {
    this.root = root;
    this.on = on;
    this.figures = new Map();
    this.draft = null; // {key, edges}: the box that is being changed; a new one has no key.
    this.drawing = false;
    new ResizeObserver(() => this.drawBoxes()).observe(root);
  }

  show(state, visible) {
    this.state = state;
    const layers = state.layers.filter((layer) => visible.has(layer.name));
    const [low, high, bottom, top] = state.extent ?? [0, 1, 0, 1];
    this.root.style.setProperty("--aspect", (high - low) / (top - bottom));
    this.root.style.setProperty("--rows", Math.ceil(layers.length / (layers.length > 1 ? 2 : 1)) || 1);
    this.root.classList.toggle("one", layers.length === 1);
    for (const [name, figure] of this.figures) {
      if (!layers.some((layer) => layer.name === name)) {
        figure.element.remove();
        this.figures.delete(name);
      }
    }
    layers.forEach((layer, index) => this.showLayer(layer, index));
    this.drawBoxes();
  }

  showLayer(layer, index) {
    const figure = this.figures.get(layer.name) ?? this.newFigure(layer.name);
    if (this.root.children[index] !== figure.element) {
      this.root.insertBefore(figure.element, this.root.children[index] ?? null);
    }
    const { name, element } = this.state;
    const place = [name, "maps", layer.name, `${element}.png`].map(encodeURIComponent).join("/");
    const source = `api/surveys/${place}?v=${layer.version}`;
    if (figure.image.getAttribute("src") !== source) figure.image.src = source;
    figure.image.alt = `${layer.title} map of ${element}`;
    figure.title.textContent = layer.title;
    figure.note.textContent = layer.note;
    figure.low.textContent = `${layer.range[0]}`;
    figure.high.textContent = `${layer.range[1]} ${layer.unit}`;
    figure.colors.style.background = layer.colors;
  }

  newFigure(name) {
    const make = (tag, parent) => parent.appendChild(document.createElement(tag));
    const element = document.createElement("figure");
    element.dataset.layer = name;
    const caption = make("figcaption", element);
    const title = make("b", caption);
    const note = make("span", caption);
    const map = make("div", element);
    map.className = "map";
    const image = make("img", map);
    image.draggable = false;
    const svg = map.appendChild(document.createElementNS(SVG, "svg"));
    const bar = make("div", element);
    bar.className = "bar";
    const [low, colors, high] = ["span", "i", "span"].map((tag) => make(tag, bar));
    const figure = { element, title, note, image, svg, low, colors, high };
    svg.addEventListener("pointerdown", (event) => this.press(event, figure));
    svg.addEventListener("keydown", (event) => this.key(event));
    this.figures.set(name, figure);
    return figure;
  }

  // Micrometers to pixels of a map and back; y grows upwards.
  scale(svg) {
    const [low, high, bottom, top] = this.state.extent;
    const { width, height } = svg.getBoundingClientRect();
    const x = (um) => ((um - low) / (high - low)) * width;
    const y = (um) => ((top - um) / (top - bottom)) * height;
    const um = (event) => {
      const box = svg.getBoundingClientRect();
      return [
        low + ((event.clientX - box.left) / width) * (high - low),
        top - ((event.clientY - box.top) / height) * (top - bottom),
      ];
    };
    return { x, y, um, width, height };
  }

  drawBoxes() {
    if (!this.state?.extent) return;
    for (const { svg } of this.figures.values()) {
      const focused = svg.contains(document.activeElement) ? document.activeElement.dataset.key : null;
      svg.replaceChildren();
      const scale = this.scale(svg);
      for (const region of this.state.regions) {
        const edges = this.draft?.key === region.key ? this.draft.edges : region.edges;
        this.drawRegion(svg, scale, region, edges);
      }
      if (this.draft && !this.draft.key) {
        this.drawRegion(svg, scale, { key: "", number: "new", disposition: "" }, this.draft.edges);
      }
      if (svg === [...this.figures.values()][0].svg) this.drawScaleBar(svg, scale);
      if (focused !== null) svg.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
    }
  }

  drawRegion(svg, scale, region, [xLow, xHigh, yLow, yHigh]) {
    const { key, disposition, place } = region;
    const isDraft = this.draft?.key === key;
    const group = add(svg, "g", { tabindex: 0, role: "button", "data-key": key });
    group.setAttribute("aria-label", `Region ${region.number}, ${disposition || "not kept yet"}`);
    group.classList.toggle("out", OUT.includes(disposition));
    group.classList.toggle("approved", FLOWN.includes(disposition));
    group.classList.toggle("chosen", isDraft || this.chosen === key);
    group.classList.toggle("draft", isDraft);
    const box = { x: scale.x(xLow), y: scale.y(yHigh) };
    box.width = Math.max(scale.x(xHigh) - box.x, 1);
    box.height = Math.max(scale.y(yLow) - box.y, 1);
    for (const kind of ["halo", "line box"]) add(group, "rect", { ...box, class: kind });
    if (place && !isDraft) {
      const line = { x1: scale.x(place.anchor_x_um), y1: scale.y(place.anchor_y_um) };
      Object.assign(line, { x2: scale.x(place.x_um), y2: scale.y(place.y_um) });
      add(group, "line", { ...line, class: "halo leader" });
      add(group, "line", { ...line, class: "line leader" });
      for (const kind of ["halo", "line"]) {
        add(group, "text", { x: line.x2, y: line.y2, class: kind }).textContent = region.number;
      }
    }
    if (isDraft) {
      const corners = { nw: [0, 0], ne: [1, 0], sw: [0, 1], se: [1, 1] };
      for (const [name, [right, down]] of Object.entries(corners)) {
        const at = { cx: box.x + right * box.width, cy: box.y + down * box.height, r: ".4rem" };
        add(group, "circle", { ...at, class: "handle", "data-corner": name, style: `cursor:${name}-resize` });
      }
    }
  }

  drawScaleBar(svg, scale) {
    const { um, words } = this.state.scale_bar;
    const length = scale.x(this.state.extent[0] + um);
    const [x, y] = [0.04 * scale.width, scale.height * 0.94];
    for (const [stroke, width] of [["#000", ".5rem"], ["#fff", ".25rem"]]) {
      add(svg, "line", { x1: x, x2: x + length, y1: y, y2: y, style: `stroke:${stroke};stroke-width:${width}` });
    }
    for (const kind of ["halo", "line"]) {
      add(svg, "text", { x: x + length / 2, y, dy: "-.9em", class: kind }).textContent = words;
    }
  }

  press(event, { svg }) {
    if (event.button !== 0) return;
    const scale = this.scale(svg);
    const key = event.target.closest("g")?.dataset.key;
    const corner = event.target.dataset.corner;
    const start = scale.um(event);
    if (this.drawing) {
      this.follow(event, svg, scale, (now) => ordered(start[0], now[0], start[1], now[1]));
    } else if (this.draft && key === this.draft.key) {
      const before = this.draft.edges;
      this.follow(event, svg, scale, (now) =>
        changed(before, now[0] - start[0], now[1] - start[1], corner));
    } else if (key !== undefined) {
      this.on.choose(key);
    }
  }

  follow(event, svg, scale, edgesAt) {
    event.preventDefault();
    const { clientX, clientY } = event;
    const stop = new AbortController();
    const listen = (name, act) => window.addEventListener(name, act, { signal: stop.signal });
    listen("pointermove", (move) => {
      const far = Math.hypot(move.clientX - clientX, move.clientY - clientY) >= LEAST_PX;
      if (far) this.on.draft(edgesAt(scale.um(move)));
    });
    for (const name of ["pointerup", "pointercancel"]) listen(name, () => stop.abort());
  }

  key(event) {
    const key = event.target.closest("g")?.dataset.key;
    if (key === undefined) return;
    const isDraft = this.draft?.key === key;
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (by && isDraft) {
      const step = this.state.cost?.step_um ?? 1;
      const corner = event.shiftKey ? "ne" : undefined;
      this.on.draft(changed(this.draft.edges, by[0] * step, by[1] * step, corner));
    } else if (event.key === "Enter") {
      if (isDraft) this.on.keep();
      else this.on.edit(key);
    } else if (event.key === " " && !isDraft) this.on.tick(key);
    else if (event.key === "Escape" && isDraft) this.on.cancel();
    else return;
    event.preventDefault();
  }

  focusDraft() {
    const svg = [...this.figures.values()][0]?.svg;
    svg?.querySelector(`[data-key="${CSS.escape(this.draft.key)}"]`)?.focus();
  }
}

function add(parent, tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return parent.appendChild(element);
}

function ordered(x1, x2, y1, y2) {
  return [Math.min(x1, x2), Math.max(x1, x2), Math.min(y1, y2), Math.max(y1, y2)];
}

// Edges after a move of the whole box, or of one of its corners ("n" is up, "w" is left).
function changed([xLow, xHigh, yLow, yHigh], dx, dy, corner) {
  if (!corner) return [xLow + dx, xHigh + dx, yLow + dy, yHigh + dy];
  const x = corner.includes("w") ? [xLow + dx, xHigh] : [xLow, xHigh + dx];
  const y = corner.includes("s") ? [yLow + dy, yHigh] : [yLow, yHigh + dy];
  return ordered(...x, ...y);
}
