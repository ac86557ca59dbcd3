// The page: asks for the state of a survey, shows it, and passes on what people decide.

import { Maps } from "./maps.js";

const ASK_MS = 500;
const HIDDEN = new Set(JSON.parse(localStorage.getItem("hidden") ?? '["baseline"]'));
const by = (id) => document.getElementById(id);
const INPUTS = ["x-low", "x-high", "y-low", "y-high"];

let state = null; // what the server told last
let shown = location.hash.slice(1); // name of the survey; "": the latest
let follows = !shown;
let element = null;
let busy = false;
const ticked = new Set();

const maps = new Maps(by("maps"), {
  choose: (key) => {
    maps.chosen = key;
    ticked.has(key) ? ticked.delete(key) : ticked.add(key);
    render();
    by("regions").querySelector("tr.chosen")?.scrollIntoView({ block: "nearest" });
  },
  tick: (key) => {
    ticked.has(key) ? ticked.delete(key) : ticked.add(key);
    render();
  },
  edit: (key) => edit(key),
  draft: (edges) => {
    if (!maps.draft) openEditor("", edges);
    maps.draft.edges = edges;
    maps.drawing = false;
    fillEditor();
    maps.drawBoxes();
  },
  keep: () => keep(),
  cancel: () => closeEditor(),
});

async function ask(path, options) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(15000), ...options });
  if (answer.status === 204) return null;
  const content = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(content.error ?? answer.statusText), { said: true });
  return content;
}

async function list() {
  const surveys = await ask("api/surveys");
  const select = by("survey");
  const wanted = surveys.map((one) => [one.name, title(one)]);
  const old = [...select.options].map((option) => [option.value, option.textContent]);
  if (JSON.stringify(wanted) !== JSON.stringify(old)) {
    select.replaceChildren(...wanted.map(([name, words]) => new Option(words, name)));
  }
  if (follows && surveys.length && surveys[0].name !== shown) choose(surveys[0].name);
  select.value = shown;
  const one = surveys.find((survey) => survey.name === shown);
  by("report").hidden = !one?.report;
  by("report").href = `surveys/${encodeURIComponent(shown)}/report.html`;
}

function title(one) {
  const when = new Date(one.time * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  return [when, one.sample, one.find && `find ${one.find}`].filter(Boolean).join(" · ");
}

function choose(name) {
  if (maps.draft) closeEditor();
  shown = name;
  state = null;
  element = null;
  ticked.clear();
}

async function refresh() {
  if (!shown) return;
  const query = new URLSearchParams();
  if (state) query.set("version", state.version);
  if (element) query.set("element", element);
  const asked = shown;
  const found = await ask(`api/surveys/${encodeURIComponent(asked)}?${query}`);
  if (found && asked === shown) take(found);
}

function take(found) {
  state = found;
  element = state.element || null;
  for (const key of [...ticked]) {
    if (!state.regions.some((region) => region.key === key && region.editable)) ticked.delete(key);
  }
  render();
}

async function loop() {
  for (let turn = 0; ; turn += 1) {
    try {
      if (turn % 4 === 0 || !shown) await list();
      if (!busy) await refresh();
      say("connection", state?.reading ? "reading …" : "live");
      by("connection").classList.remove("lost");
    } catch (error) {
      say("connection", error.said ? error.message : "no answer; trying again …");
      by("connection").classList.add("lost");
    }
    await new Promise((done) => setTimeout(done, document.hidden ? 4 * ASK_MS : ASK_MS));
  }
}

function say(id, words) {
  if (by(id).textContent !== words) by(id).textContent = words;
}

function render() {
  if (!state) return;
  document.title = `${title(state)} – surveys`;
  say("about", [state.beamline, state.uid.slice(0, 8)].join(" · "));
  renderChoices();
  maps.show(state, new Set(state.layers.map((layer) => layer.name).filter((name) => !HIDDEN.has(name))));
  renderProgress();
  renderRegions();
  renderButtons();
  const lines = [...(state.verdicts ?? []), ...(state.notes ?? [])];
  by("verdicts").replaceChildren(...lines.map((words) => text("p", words)));
}

function text(tag, words, className) {
  const made = document.createElement(tag);
  made.textContent = words;
  if (className) made.className = className;
  return made;
}

function renderChoices() {
  fill(by("elements"), "radio", state.elements.map((name) => [name, name]), (name) => name === element, (name) => {
    element = name;
    state = { ...state, version: "" };
    refresh().catch(() => {});
  });
  const layers = state.layers.map((layer) => [layer.name, layer.title]);
  fill(by("layers"), "checkbox", layers, (name) => !HIDDEN.has(name), (name, on) => {
    on ? HIDDEN.delete(name) : HIDDEN.add(name);
    localStorage.setItem("hidden", JSON.stringify([...HIDDEN]));
    render();
  });
}

function fill(fieldset, type, choices, isOn, act) {
  const names = JSON.stringify(choices);
  if (fieldset.dataset.names !== names) {
    fieldset.dataset.names = names;
    fieldset.querySelectorAll("label").forEach((label) => label.remove());
    for (const [value, words] of choices) {
      const input = Object.assign(document.createElement("input"), { type, value, name: fieldset.id });
      input.addEventListener("change", () => act(value, input.checked));
      const label = document.createElement("label");
      label.append(input, ` ${words}`);
      fieldset.append(label);
    }
  }
  for (const input of fieldset.querySelectorAll("input")) input.checked = isOn(input.value);
}

function renderProgress() {
  const bar = (id, value, most, words) => {
    by(id).max = most || 1;
    by(id).value = Math.min(value, most || 1);
    say(`${id}-words`, words);
  };
  const { coarse, fine, cost } = state;
  const rows = (part) => `${part.rows} of ${part.of_rows}` + (part.over || part.left_s === null ? "" : `, ${seconds(part.left_s)} left`);
  if (coarse) bar("rows", coarse.rows, coarse.of_rows, rows(coarse));
  if (fine) bar("rescans", fine.rows, fine.of_rows, fine.of_rows ? rows(fine) : "none yet");
  const limit = cost?.budget_s ?? null;
  const approved = cost?.approved_s ?? 0;
  const all = approved + (cost?.undecided_s ?? 0);
  bar("time", approved, limit ?? all, cost ? `${seconds(approved)} approved of ${seconds(limit ?? all)}${limit === null ? " proposed" : ""}` : "–");
  const most = cost?.max_dose ?? null;
  const dose = cost?.dose ?? 0;
  const unit = cost?.dose_unit ? ` ${cost.dose_unit}` : "";
  bar("dose", most === null ? 0 : dose, most ?? 1, cost ? `${dose.toPrecision(3)}${most === null ? "" : ` of ${most.toPrecision(3)}`}${unit}${most === null ? ", no limit" : ""}` : "–");
}

function seconds(s) {
  return s < 120 ? `${s.toPrecision(s < 10 ? 2 : 3)} s` : `${Math.round(s / 60)} min`;
}

function renderRegions() {
  by("no-regions").hidden = state.regions.length > 0;
  by("regions").hidden = state.regions.length === 0;
  const body = by("regions").tBodies[0];
  const focused = document.activeElement?.closest?.("tr")?.dataset.key;
  const part = document.activeElement?.tagName;
  body.replaceChildren(...state.regions.flatMap((region) => [row(region), reasons(region)]));
  if (focused) body.querySelector(`tr[data-key="${CSS.escape(focused)}"] ${part}`)?.focus();
}

function row(region) {
  const line = document.createElement("tr");
  line.dataset.key = region.key;
  line.classList.toggle("chosen", maps.chosen === region.key || maps.draft?.key === region.key);
  const tick = Object.assign(document.createElement("input"), { type: "checkbox" });
  tick.setAttribute("aria-label", `Region ${region.number}`);
  tick.checked = ticked.has(region.key);
  tick.disabled = !region.editable;
  tick.addEventListener("change", () => {
    tick.checked ? ticked.add(region.key) : ticked.delete(region.key);
    maps.chosen = region.key;
    render();
  });
  const change = text("button", "Edit");
  change.type = "button";
  change.disabled = !region.editable;
  change.setAttribute("aria-label", `Edit region ${region.number}`);
  change.addEventListener("click", () => edit(region.key));
  const cells = [text("td", ""), text("td", region.number, "number"), text("td", region.elements.join(", ") || "any")];
  cells[0].append(tick);
  cells.push(text("td", region.score ? region.score.toPrecision(2) : "–", "number"));
  cells.push(text("td", region.expected ?? "–", "number"));
  cells.push(text("td", region.time_s === null ? "–" : seconds(region.time_s), "number"));
  cells.push(text("td", region.disposition), text("td", ""));
  cells.at(-1).append(change);
  line.append(...cells);
  return line;
}

function reasons(region) {
  const line = document.createElement("tr");
  line.className = "why";
  const said = region.reason === region.picked ? [region.reason] : [region.reason, region.picked];
  const words = text("td", said.filter(Boolean).join("; "));
  words.colSpan = 7;
  line.append(text("td", ""), words);
  return line;
}

function renderButtons() {
  const { cost, waiting, open } = state;
  for (const id of ["approve", "deny"]) by(id).disabled = busy || !ticked.size || !open;
  by("draw").disabled = busy || !open || !state.extent;
  by("draw").setAttribute("aria-pressed", maps.drawing);
  by("maps").classList.toggle("drawing", maps.drawing);
  by("send").disabled = busy || !open || (!waiting && !cost.ready);
  const rest = waiting && cost.undecided ? `; ${cost.undecided} undecided ${cost.undecided === 1 ? "is" : "are"} denied` : "";
  say("send", open && (waiting || cost.ready) ? `Send ${cost.ready} approved${rest}` : "Send");
  const left = waiting ? Math.max(0, waiting.until - Date.now() / 1000) : 0;
  const then = { propose: "stay proposed", approve: "are flown", deny: "are not flown" }[waiting?.undecided];
  say("waiting", waiting ? `The scan waits for your decision, ${seconds(left)} more. Then undecided regions ${then}.` : "");
}

async function tell(path, wish) {
  if (busy || !state) return false;
  busy = true;
  renderButtons();
  try {
    const body = JSON.stringify({ who: by("who").value, why: by("why").value, element, ...wish });
    const headers = { "content-type": "application/json", "x-xrf-sr": "1" };
    const place = `api/surveys/${encodeURIComponent(shown)}/${path}`;
    const wait = AbortSignal.timeout(path === "send" ? 150000 : 15000);
    const found = await ask(place, { method: "POST", body, headers, signal: wait });
    say("message", "");
    take(found);
    return true;
  } catch (error) {
    say("message", error.said ? error.message : "No answer. Nothing is lost: look at the list, then try again.");
    return false;
  } finally {
    busy = false;
    renderButtons();
  }
}

const numbers = () => state.regions.filter((one) => ticked.has(one.key)).map((one) => one.number);

async function decide(action) {
  if (await tell("decide", { action, numbers: numbers() })) {
    ticked.clear();
    render();
  }
}

function edit(key) {
  const region = state.regions.find((one) => one.key === key);
  if (!region?.editable) return;
  openEditor(key, region.edges);
  render();
  maps.focusDraft();
}

function openEditor(key, edges) {
  maps.draft = { key, edges: [...edges] };
  const region = state.regions.find((one) => one.key === key);
  say("editor-title", region ? `Region ${region.number}` : "A region of your own");
  say("x-low-name", state.axes[0]);
  say("y-low-name", state.axes[1]);
  by("editor").hidden = false;
  fillEditor();
}

function fillEditor() {
  maps.draft.edges.forEach((edge, index) => {
    by(INPUTS[index]).value = Number(edge.toFixed(3));
  });
}

function closeEditor() {
  maps.draft = null;
  maps.drawing = false;
  by("editor").hidden = true;
  render();
}

async function keep() {
  const { key } = maps.draft;
  const edges = INPUTS.map((id) => Number(by(id).value));
  const region = state.regions.find((one) => one.key === key);
  const wish = key ? { action: "edit", number: region.number, edges } : { action: "draw", edges, elements: [element] };
  if (await tell("decide", wish)) closeEditor();
}

function startDrawing() {
  if (maps.drawing || maps.draft) {
    closeEditor();
    return;
  }
  // With a mouse the box is drawn anew; with keys this one is moved and resized.
  const [low, high, bottom, top] = state.extent;
  const [x, y] = [(low + high) / 2, (bottom + top) / 2];
  const [w, h] = [(high - low) / 10, (top - bottom) / 10];
  openEditor("", [x - w, x + w, y - h, y + h]);
  maps.drawing = true;
  render();
  maps.focusDraft();
}

by("survey").addEventListener("change", (event) => {
  follows = event.target.selectedIndex === 0;
  choose(event.target.value);
  history.replaceState(null, "", follows ? "#" : `#${shown}`);
  refresh().catch(() => {});
});
by("who").value = localStorage.getItem("who") ?? "";
by("who").addEventListener("change", () => localStorage.setItem("who", by("who").value));
by("approve").addEventListener("click", () => decide("approve"));
by("deny").addEventListener("click", () => decide("deny"));
by("send").addEventListener("click", () => tell("send", {}));
by("draw").addEventListener("click", startDrawing);
by("cancel").addEventListener("click", closeEditor);
by("editor").addEventListener("submit", (event) => {
  event.preventDefault();
  keep();
});
INPUTS.forEach((id, index) => by(id).addEventListener("input", () => {
  if (!maps.draft || by(id).value === "") return;
  maps.draft.edges[index] = Number(by(id).value);
  maps.drawBoxes();
}));
loop();
