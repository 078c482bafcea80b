"use strict";
// The page of `jepa play`. Frames come as binary messages: header length, header (JSON), pictures (raw, or WebP).

const $ = (id) => document.getElementById(id);
const HISTORY = 600; // frames that the plot of the drift shows
const SEND_MS = 8; // at least between two messages that say what is held
const WORDS_MS = 150; // from one update of texts and plot to the next
const DRAG = 0.3; // of a screen's width: a mouse that is dragged so far pushes fully
const CLICK = 6; // pixels that a mouse moves at most in a click

const AXIS_KEYS = {
  ArrowRight: [0, 1], KeyD: [0, 1], ArrowLeft: [0, -1], KeyA: [0, -1],
  ArrowDown: [1, 1], KeyS: [1, 1], ArrowUp: [1, -1], KeyW: [1, -1],
  KeyE: [2, 1], KeyQ: [2, -1],
};
const AXIS_NAMES = [["→", "←"], ["↓", "↑"], ["E", "Q"]];

// What a test or a person at the console may read.
const play = { fps: 0, latency: null, latencies: [], frames: 0, drawn: 0, header: null, hello: null, drives: false, closed: false };
window.play = play;

let socket = null;
let run = null; // what the server says of the active run
let seq = 0;
const sentAt = new Map(); // of the inputs that no frame has shown yet
let drift = [];
let newest = 0;
const held = new Set();
let drag = null;
let lastAxes = "0,0,0";
let lastSent = 0;
let strengths = [];
let worded = 0;
let wordedTruth = null;
let overlaid = "";
const arrived = []; // times of the frames of the last second

function connect() {
  const address = new URL("play", location.href);
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  address.search = location.search; // the token
  socket = new WebSocket(address);
  socket.binaryType = "arraybuffer";
  socket.onmessage = (event) => (typeof event.data === "string" ? onText(JSON.parse(event.data)) : onFrame(event.data));
  socket.onclose = (event) => {
    play.closed = true;
    play.drives = false;
    $("status").textContent = "the server ended" + (event.reason ? `: ${event.reason}` : "") + "; looking for it …";
    setTimeout(connect, 2000);
  };
  socket.onopen = () => {
    play.closed = false;
    newest = 0;
    play.drawn = 0;
  };
}

function send(message) {
  if (socket && socket.readyState === WebSocket.OPEN && play.drives) socket.send(JSON.stringify(message));
}

function onText(message) {
  if (message.hello) {
    play.hello = message.hello;
    drift = [];
    strengths = message.hello.runs.map(() => null);
    showRuns();
    choose(message.hello.active);
  }
  if ("drives" in message) {
    play.drives = message.drives;
    document.querySelectorAll("aside button, aside input, nav button").forEach((each) => { each.disabled = !play.drives; });
  }
  if (message.notice) $("notice").textContent = message.notice;
}

function showRuns() {
  const buttons = play.hello.runs.map((each, number) => {
    const button = document.createElement("button");
    button.textContent = each.name.split("/").filter(Boolean).pop();
    button.title = `${each.name}: ${each.world}`;
    button.onclick = () => send({ run: number });
    return button;
  });
  $("runs").replaceChildren(...buttons);
}

function choose(number) {
  run = play.hello.runs[number];
  drift = [];
  [...$("runs").children].forEach((button, each) => button.setAttribute("aria-pressed", each === number));
  $("imagined-screen").classList.toggle("clickable", run.clickable);
  $("true-screen").classList.toggle("clickable", run.clickable);
  $("temperature-label").hidden = !run.stochastic;
  $("truth").hidden = $("keep").hidden = !run.has_truth;
  $("goal").hidden = $("stop").hidden = !run.has_goals;
  $("true-note").textContent = run.world;
  const events = run.events.map(({ name, known }, event) => {
    const button = document.createElement("button");
    button.innerHTML = `<kbd>${event + 1}</kbd>`;
    button.append(name);
    button.classList.toggle("unknown", !known);
    button.title = known ? "an event of the world that the model knows" : "happens in the true world only: the model does not know it";
    button.onclick = () => send({ event });
    button.id = `event-${event}`;
    return button;
  });
  $("events").replaceChildren(...events);
  $("events-panel").hidden = !events.length;
  $("events-note").textContent = run.events.some(({ known }) => known) ? "" : "in the true world only: the model knows none";
  showKeys();
}

function showKeys() {
  const rows = run.axes.map(([axis, sign], action) => {
    if (axis >= AXIS_NAMES.length) return ["–", `${run.actions[action]}: stays 0`];
    const [plus, minus] = AXIS_NAMES[axis];
    return [sign > 0 ? `${minus} ${plus}` : `${plus} ${minus}`, run.actions[action]];
  });
  rows.push(["Shift", "half strength"], ["Space", "no action"], ["− +", "slower, faster"]);
  if (run.clickable) rows.push(["click", "a goal in a picture"]);
  rows.push(["drag", "push in a direction"], ["WASD", "as the arrows; so does a gamepad"]);
  $("keys").replaceChildren(...rows.flatMap(([key, text]) => {
    const term = document.createElement("dt");
    const meaning = document.createElement("dd");
    term.textContent = key;
    meaning.textContent = text;
    return [term, meaning];
  }));
}

// --- frames

function onFrame(data) {
  const number = ++newest;
  const length = new DataView(data).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  let at = 4 + length;
  const parts = header.pictures.map(([name, kind, width, height, size]) => {
    at += size;
    return { name, kind, width, height, bytes: new Uint8Array(data, at - size, size) };
  });
  if (parts.every(({ kind }) => kind === "rgb")) return draw(number, header, parts.map(pixels), parts);
  return Promise.all(parts.map((part) => createImageBitmap(part.kind === "rgb" ? pixels(part)
    : new Blob([part.bytes], { type: "image/webp" })))).then((images) => draw(number, header, images, parts));
}

function pixels({ width, height, bytes }) {
  const image = new ImageData(width, height);
  const rgba = new Uint32Array(image.data.buffer);
  for (let pixel = 0, at = 0; pixel < rgba.length; pixel += 1, at += 3) {
    rgba[pixel] = 0xff000000 | (bytes[at + 2] << 16) | (bytes[at + 1] << 8) | bytes[at];
  }
  return image;
}

function draw(number, header, images, parts) {
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ drawn: number }));
  if (number < play.drawn) return; // a later one was decoded first
  play.drawn = number;
  if (!play.hello) return;
  parts.forEach(({ name }, index) => paint(name === "goal" ? "goal-picture" : name, images[index]));
  if (play.hello.runs[header.run] !== run) choose(header.run);
  show(header);
}

function paint(id, image) {
  const canvas = $(id);
  if (canvas.width !== image.width) canvas.width = image.width;
  if (canvas.height !== image.height) canvas.height = image.height;
  const context = canvas.getContext("2d", { alpha: false });
  if (image instanceof ImageData) context.putImageData(image, 0, 0);
  else context.drawImage(image, 0, 0);
}

function show(header) {
  const now = performance.now();
  play.header = header;
  play.frames += 1;
  arrived.push(now);
  while (arrived[0] < now - 2000) arrived.shift();
  play.fps = arrived.length > 1 ? (1000 * (arrived.length - 1)) / (now - arrived[0]) : 0;
  for (const [number, time] of sentAt) {
    if (number > header.seq) break;
    if (number === header.seq) {
      play.latency = now - time;
      play.latencies.push(play.latency);
      if (play.latencies.length > 500) play.latencies.shift();
    }
    sentAt.delete(number);
  }
  if (header.drift) drift.push({ ...header.drift, step: header.step });
  if (drift.length > HISTORY) drift = drift.slice(-HISTORY);
  drawOverlays(header);
  if (now - worded > WORDS_MS || header.truth !== wordedTruth) {
    worded = now;
    wordedTruth = header.truth;
    showWords(header);
  }
}

// What changes slower than the pictures: laying out text takes longer than a frame.
function showWords(header) {
  $("true-figure").hidden = $("drift-panel").hidden = !header.truth;
  $("imagined-note").textContent = `step ${header.step} since grounding · ${(header.step * run.step_seconds).toFixed(1)} s` +
    (header.ended ? " · the true episode is over" : "");
  press("truth", header.truth);
  press("keep", header.keep_grounded);
  press("record", header.recording !== null);
  $("record").lastChild.textContent = header.recording === null ? " Record" : ` Recording: ${header.recording}`;
  set("fps", header.fps, `${header.fps} steps/s · ${(header.fps * run.step_seconds).toFixed(1)} × real time`);
  set("temperature", header.temperature, header.temperature.toFixed(2));
  $("stop").disabled = !(play.drives && header.goal && header.goal.status === "planning");
  showGoal(header.goal);
  if (header.truth) plotDrift(header);
  const index = play.hello.runs.indexOf(run);
  if (strengths[index] === null) setStrength(Math.min(1, 3 / (header.fps * run.step_seconds)));
  else setStrength(strengths[index]);
}

function press(id, isPressed) { $(id).setAttribute("aria-pressed", String(Boolean(isPressed))); }

function set(id, value, text) {
  if (document.activeElement !== $(id)) $(id).value = value;
  $(`${id}-value`).textContent = text;
}

function setStrength(value) {
  const index = play.hello.runs.indexOf(run);
  strengths[index] = Math.max(0.05, Math.round(20 * value) / 20);
  set("strength", 100 * strengths[index], `${Math.round(100 * strengths[index])} %`);
}

function showGoal(goal) {
  $("goal-panel").hidden = !goal;
  if (!goal) return;
  const imagined = run.readout_r2 === null ? `${(100 * goal.distance).toFixed(0)} % of the first latent distance`
    : `${goal.distance.toFixed(2)} widths away`;
  const truth = goal.true_distance === null ? "" : `; true world ${goal.true_distance < 1 ? "there" : `${goal.true_distance.toFixed(1)} radii away`}`;
  $("goal-text").textContent = `${goal.status}, ${goal.steps} steps: ${imagined}${truth}`;
}

function fit(canvas) {
  const scale = window.devicePixelRatio || 1;
  const width = Math.round(canvas.clientWidth * scale);
  const height = Math.round(canvas.clientHeight * scale);
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
  return context;
}

function drawOverlays(header) {
  const size = $("imagined-overlay").clientWidth;
  const wanted = header.goal ? JSON.stringify([header.goal.path, header.goal.point, header.goal.status, header.truth, size]) : "";
  if (wanted === overlaid) return;
  overlaid = wanted;
  const style = getComputedStyle(document.documentElement);
  for (const id of header.truth ? ["imagined-overlay", "true-overlay"] : ["imagined-overlay"]) {
    const canvas = $(id);
    const context = fit(canvas);
    const goal = header.goal;
    if (!goal) continue;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (id === "imagined-overlay" && goal.status === "planning") {
      goal.path.forEach(([x, y], step) => {
        context.globalAlpha = 1 - (0.7 * step) / goal.path.length;
        context.fillStyle = style.getPropertyValue("--path");
        context.beginPath();
        context.arc(x * width, y * height, 5, 0, 2 * Math.PI);
        context.fill();
      });
      context.globalAlpha = 1;
    }
    if (goal.point) {
      const [x, y] = [goal.point[0] * width, goal.point[1] * height];
      context.strokeStyle = style.getPropertyValue("--goal");
      context.lineWidth = 2.5;
      context.beginPath();
      context.arc(x, y, 13, 0, 2 * Math.PI);
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        context.moveTo(x + 8 * dx, y + 8 * dy);
        context.lineTo(x + 19 * dx, y + 19 * dy);
      }
      context.stroke();
    }
  }
}

function plotDrift(header) {
  const canvas = $("drift");
  const context = fit(canvas);
  const style = getComputedStyle(document.documentElement);
  const [width, height, left, bottom] = [canvas.clientWidth, canvas.clientHeight, 34, 6];
  const top = Math.max(0.1, ...drift.map((each) => Math.max(each.latent, Math.min(each.still, 4))));
  const y = (value) => height - bottom - ((height - bottom - 8) * Math.min(value, top)) / top;
  const x = (index) => left + ((width - left) * index) / (HISTORY - 1);
  context.font = "12px system-ui, sans-serif";
  context.textBaseline = "middle";
  for (const value of [0, top / 2, top]) {
    context.strokeStyle = style.getPropertyValue("--line");
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(left, y(value));
    context.lineTo(width, y(value));
    context.stroke();
    context.fillStyle = style.getPropertyValue("--soft");
    context.fillText(value.toFixed(top < 1 ? 2 : 1), 0, y(value));
  }
  for (const [name, color, thick] of [["still", "--still", 1.5], ["latent", "--accent", 2]]) {
    context.strokeStyle = style.getPropertyValue(color);
    context.lineWidth = thick;
    context.beginPath();
    drift.forEach((each, index) => context[index && each.step > drift[index - 1].step ? "lineTo" : "moveTo"](x(index), y(each[name])));
    context.stroke();
  }
  const now = header.drift;
  $("drift-now").textContent = now ? `latent ${now.latent.toFixed(2)} · pixels ${(100 * now.pixel).toFixed(1)} %` : "";
}

// --- input

function axes() {
  const value = [0, 0, 0];
  if (!held.has("Space")) {
    for (const code of held) {
      const key = AXIS_KEYS[code];
      if (key) value[key[0]] += key[1];
    }
    const pad = [...(navigator.getGamepads ? navigator.getGamepads() : [])].find(Boolean);
    if (pad) [0, 1, 2].forEach((axis) => { if (Math.abs(pad.axes[axis] || 0) > 0.15) value[axis] += pad.axes[axis]; });
    if (drag && drag.moved) { value[0] += drag.x; value[1] += drag.y; }
  }
  const strength = (strengths[play.hello.runs.indexOf(run)] || 1) * (held.has("Shift") ? 0.5 : 1);
  return value.map((each) => Number((strength * Math.max(-1, Math.min(1, each))).toFixed(3)) + 0);
}

function sendAxes() {
  if (!run || !play.drives) return;
  const value = axes();
  const text = value.join();
  $("stick").style.transform = `translate(${28 * value[0]}px, ${28 * value[1]}px)`;
  $("held").textContent = run.actions.map((name, action) => {
    const [axis, sign] = run.axes[action];
    const amount = axis < 3 ? sign * value[axis] : 0;
    return amount ? `${name} ${amount.toFixed(2)}` : "";
  }).filter(Boolean).join(" · ");
  const now = performance.now();
  if (text === lastAxes || now - lastSent < SEND_MS) return;
  lastAxes = text;
  lastSent = now;
  seq += 1;
  sentAt.set(seq, now);
  send({ axes: value, seq });
}

const BUTTONS = {
  KeyR: "reground", KeyN: "reset", KeyT: "truth", KeyK: "keep", KeyG: "goal", KeyX: "stop", KeyV: "record",
};

window.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.code in AXIS_KEYS || event.code === "Space") {
    if (event.target.tagName === "INPUT") event.target.blur();
    event.preventDefault();
    held.add(event.code);
  } else if (event.key === "Shift") held.add("Shift");
  else if (!event.repeat && event.code in BUTTONS && !$(BUTTONS[event.code]).hidden) $(BUTTONS[event.code]).click();
  else if (/^Digit[1-9]$/.test(event.code)) $(`event-${event.code.slice(5) - 1}`)?.click();
  else if (event.key === "-" || event.key === "+" || event.key === "=") {
    const fps = Number($("fps").value) + (event.key === "-" ? -2 : 2);
    send({ fps: Math.max(1, Math.min(60, fps)) });
  }
  sendAxes();
});
window.addEventListener("keyup", (event) => {
  held.delete(event.key === "Shift" ? "Shift" : event.code);
  sendAxes();
});
window.addEventListener("blur", () => { held.clear(); drag = null; sendAxes(); });

for (const id of ["imagined", "true"]) {
  const screen = $(`${id}-screen`);
  screen.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "mouse" && event.button !== 0) return;
    screen.setPointerCapture(event.pointerId);
    drag = { fromX: event.clientX, fromY: event.clientY, x: 0, y: 0, moved: false };
  });
  screen.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const [dx, dy] = [event.clientX - drag.fromX, event.clientY - drag.fromY];
    drag.moved = drag.moved || Math.hypot(dx, dy) > CLICK;
    const far = DRAG * screen.clientWidth;
    const scale = 1 / Math.max(far, Math.hypot(dx, dy));
    drag.x = dx * scale;
    drag.y = dy * scale;
    sendAxes();
  });
  screen.addEventListener("pointerup", (event) => {
    if (drag && !drag.moved && run && run.clickable) {
      const box = screen.getBoundingClientRect();
      const at = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
      send({ goal: at.map((each) => Math.max(0, Math.min(1, each))) });
    }
    drag = null;
    sendAxes();
  });
}

const pressed = (id) => $(id).getAttribute("aria-pressed") === "true";
$("reground").onclick = () => send({ reground: true });
$("reset").onclick = () => { drift = []; send({ reset: true }); };
$("truth").onclick = () => send({ truth: !pressed("truth") });
$("keep").onclick = () => send({ keep_grounded: !pressed("keep") });
$("goal").onclick = () => send({ goal: "draw" });
$("stop").onclick = () => send({ stop: true });
$("record").onclick = () => send({ record: !pressed("record") });
$("fps").oninput = (event) => send({ fps: Number(event.target.value) });
$("strength").oninput = (event) => setStrength(event.target.value / 100);
$("temperature").oninput = (event) => send({ temperature: Number(event.target.value) });
document.querySelectorAll("aside input").forEach((each) => { each.onchange = () => each.blur(); });
document.querySelectorAll("button").forEach((each) => { each.addEventListener("click", () => each.blur()); });

setInterval(sendAxes, 16); // gamepads have no events
setInterval(() => {
  const role = play.drives ? "you drive" : "you watch";
  const latency = play.latency === null ? "" : ` · ${play.latency.toFixed(0)} ms from input to picture`;
  if (!play.closed && run) $("status").textContent = `${role} · ${play.fps.toFixed(1)} frames/s${latency}`;
  if (play.fps && !play.closed) send({ stats: { fps: play.fps, latency_ms: play.latency } });
}, 1000);

connect();
