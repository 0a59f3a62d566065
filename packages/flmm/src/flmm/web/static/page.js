// The page of `flmm demo`: sends pictures and texts to the server, lays masks and attention over the picture.
"use strict";

const $ = (id) => document.getElementById(id);
// The picture on show, and the masks on show: {phrases: [{phrase, colour, mask, attention, area}], result, box}.
let picture = null;
let shown = null;
let chosen = null; // number of the phrase that is shown alone; null shows all

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

// ---- server ----

async function answered(response) {
  let reply;
  try {
    reply = await response.json();
  } catch {
    throw new Error(`the server answered ${response.status} ${response.statusText}`);
  }
  if (!response.ok) throw new Error(reply.error);
  return reply;
}

async function post(path, body, headers = { "Content-Type": "application/json" }) {
  let response;
  try {
    response = await fetch(path, { method: "POST", headers, body });
  } catch {
    throw new Error("the server does not answer: is `flmm demo` still running?");
  }
  return answered(response);
}

const send = (path, fields) => post(path, JSON.stringify(fields));

// Runs a piece of work for a panel: its buttons wait, the seconds are counted, a fault is shown in words.
async function working(panel, what, work) {
  const status = panel.querySelector(".status");
  const buttons = [...panel.querySelectorAll("button:not(.phrase)")];
  const begin = performance.now();
  const tick = () => (status.textContent = `${what} … ${Math.round((performance.now() - begin) / 1000)} s`);
  status.classList.remove("error");
  buttons.forEach((button) => (button.disabled = true));
  tick();
  const clock = setInterval(tick, 1000);
  try {
    await work();
    status.textContent = "";
  } catch (fault) {
    status.textContent = fault.message;
    status.classList.add("error");
  } finally {
    clearInterval(clock);
    buttons.forEach((button) => (button.disabled = false));
  }
}

function current() {
  if (!picture) throw new Error("there is no picture: choose one on the left");
  return picture;
}

// ---- picture ----

async function choose(what, load) {
  const note = $("note");
  note.textContent = `reading ${what} …`;
  note.classList.remove("status", "error");
  try {
    picture = await load();
    note.textContent = picture.note;
    $("turns").replaceChildren();
    $("seen").replaceChildren();
    $("table").hidden = true;
    $("stages").hidden = false;
    $("invite").replaceChildren(make("b", { textContent: "Choose another picture" }), ", or drop one here");
    show(null);
  } catch (fault) {
    note.textContent = fault.message;
    note.classList.add("status", "error");
  }
}

function upload(file) {
  const headers = { "Content-Type": "application/octet-stream", "X-File-Name": encodeURIComponent(file.name) };
  return choose(file.name, () => post("api/picture", file, headers));
}

// ---- masks ----

// Puts masks on show; `only` is the number of a phrase to show alone. The same choice again shows all.
function show(found, only = null) {
  chosen = found && found === shown && only === chosen ? null : only;
  shown = found;
  draw();
}

function draw() {
  const phrases = shown ? shown.phrases : [];
  const layers = phrases.filter((_, index) => chosen === null || index === chosen);
  fill($("stage"), layers.map((one) => overlay(one.mask, "mask")));
  if (shown && shown.box) $("stage").append(frame(shown.box, shown.colour));
  $("caption").textContent =
    phrases.length === 0 ? "picture" : chosen === null ? shown.caption || "masks" : `mask: ${phrases[chosen].phrase}`;
  const heated = phrases[chosen ?? 0];
  $("heat").hidden = !(heated && heated.attention);
  if (!$("heat").hidden) {
    fill($("heatstage"), [overlay(heated.attention, "heat")]);
    $("heatcaption").textContent = `attention: ${heated.phrase}`;
  }
  const found = shown;
  $("legend").replaceChildren(...(found && found.result ? phrases.map((_, index) => chip(found, index)) : []));
  $("downloads").hidden = !(found && found.result);
  if (!$("downloads").hidden) for (const kind of ["png", "json"]) $(kind).href = `api/result/${found.result}.${kind}`;
  document.querySelectorAll(".phrase").forEach(mark);
}

function fill(stage, layers) {
  stage.style.aspectRatio = `${picture.width} / ${picture.height}`;
  stage.style.maxWidth = `${(68 * picture.width) / picture.height}vh`;
  stage.replaceChildren(make("img", { src: picture.source, alt: "the picture" }), ...layers);
}

function overlay(source, kind) {
  return make("img", { src: source, className: kind, alt: "" });
}

function frame([x0, y0, x1, y1], colour) {
  const box = make("div", { className: "box" });
  const percent = (part, whole) => `${(100 * part) / whole}%`;
  box.style.left = percent(x0, picture.width);
  box.style.top = percent(y0, picture.height);
  box.style.width = percent(x1 - x0, picture.width);
  box.style.height = percent(y1 - y0, picture.height);
  box.style.borderColor = colour;
  return box;
}

// A phrase to click on. `text` as it stands in an answer.
function chip(found, index, text = found.phrases[index].phrase) {
  const node = make("button", { type: "button", className: "phrase", textContent: text });
  const phrase = found.phrases[index];
  node.style.backgroundColor = phrase.colour;
  node.classList.toggle("missing", phrase.area === 0);
  node.title = phrase.area === 0 ? "nothing found" : `${percentOf(phrase)} of the picture`;
  node.onclick = () => show(found, index);
  node.of = { found, index };
  return node;
}

function mark(node) {
  const { found, index } = node.of;
  node.classList.toggle("chosen", found === shown && index === chosen);
  node.classList.toggle("faded", found === shown && chosen !== null && index !== chosen);
}

function percentOf(phrase) {
  return `${(100 * phrase.share).toFixed(1)} %`;
}

function highlighted(found) {
  return found.pieces.map(({ text, phrase }) => (phrase === null ? text : chip(found, phrase, text)));
}

// ---- tabs ----

async function ask() {
  const { picture: name } = current();
  const question = $("question").value;
  const { answer, text } = await send("api/ask", { picture: name, question });
  const said = make("p", { className: "said", textContent: text.trim() });
  const more = make("div", { className: "more" });
  const asked = make("p", { className: "asked", textContent: question });
  const turn = make("div", { className: "turn" }, asked, said, more);
  $("turns").prepend(turn);
  $("question").value = "";
  const found = await send("api/mark", { answer, phrases: [] });
  said.replaceChildren(...highlighted(found));
  turn.append(otherWords(answer, said, more));
  if (picture && picture.picture === name) show(found);
}

// Words that the reader marks in an answer, or types, are grounded from what was kept of it.
function otherWords(answer, said, more) {
  const words = make("input", { placeholder: "other words of this answer" });
  words.setAttribute("aria-label", "Other words of this answer");
  const button = make("button", { type: "button", textContent: "Ground" });
  said.onmouseup = () => {
    const selection = getSelection();
    if (!selection.isCollapsed && said.contains(selection.anchorNode)) words.value = selection.toString().trim();
  };
  const run = () =>
    working($("ask"), "grounding", async () => {
      if (!words.value.trim()) throw new Error("mark words in the answer first, or type them");
      const found = await send("api/mark", { answer, phrases: [words.value] });
      more.append(...found.phrases.map((_, index) => chip(found, index)));
      words.value = "";
      show(found);
    });
  button.onclick = run;
  words.onkeydown = (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    run();
  };
  return make("div", { className: "row" }, words, button);
}

async function ground() {
  const { picture: name } = current();
  const found = await send("api/ground", { picture: name, phrases: $("phrases").value.split("\n") });
  const rows = found.phrases.map((phrase, index) => {
    const area = `${percentOf(phrase)} · ${phrase.area} px`;
    const box = phrase.area ? phrase.box.join(", ") : "nothing found";
    return make("tr", {}, make("td", {}, chip(found, index)), make("td", {}, area), make("td", {}, box));
  });
  $("table").tBodies[0].replaceChildren(...rows);
  $("table").hidden = false;
  if (picture && picture.picture === name) show(found);
}

async function look() {
  const { picture: name } = current();
  const focus = document.querySelector("input[name=focus]:checked").value;
  const seen = await send("api/look", { picture: name, question: $("detail").value, focus });
  const entries = { "what matters": seen.thought, answer: seen.answer || "(nothing)" };
  const list = make("dl");
  for (const [name, value] of Object.entries(entries))
    if (value) list.append(make("dt", { textContent: name }), make("dd", { textContent: value }));
  const close = make("img", { src: seen.crop, alt: "the part that was looked at" });
  list.append(make("dt", { textContent: "looked at" }), make("dd", {}, close));
  const asked = make("p", { className: "asked", textContent: seen.question });
  $("seen").prepend(make("div", { className: "turn" }, asked, list));
  const masks = seen.mask ? [{ phrase: seen.thought || seen.question, mask: seen.mask }] : [];
  if (picture && picture.picture === name) show({ phrases: masks, caption: "what matters", box: seen.box, colour: seen.colour });
}

function panel(name, what, work) {
  $(name).onsubmit = (event) => {
    event.preventDefault();
    working($(name), what, work);
  };
  $(`tab-${name}`).onclick = () => {
    for (const other of ["ask", "ground", "look"]) {
      $(other).hidden = other !== name;
      $(`tab-${other}`).setAttribute("aria-selected", other === name);
    }
  };
}

async function begin() {
  panel("ask", "answering", ask);
  panel("ground", "grounding", ground);
  panel("look", "looking", look);
  $("file").onchange = () => {
    if ($("file").files.length) upload($("file").files[0]);
    $("file").value = "";
  };
  for (const kind of ["dragover", "dragleave", "drop"])
    $("drop").addEventListener(kind, (event) => {
      event.preventDefault();
      $("drop").classList.toggle("over", kind === "dragover");
      if (kind === "drop" && event.dataTransfer.files.length) upload(event.dataTransfer.files[0]);
    });
  const about = await answered(await fetch("api/about"));
  $("model").textContent = about.model;
  $("examples").hidden = about.examples.length === 0;
  about.examples.forEach((name, example) => {
    const image = make("img", { src: `example/${example}`, alt: name, title: name });
    const button = make("button", { type: "button" }, image);
    button.onclick = () => choose(name, () => send("api/example", { example }));
    $("examples").append(button);
  });
}

begin();
