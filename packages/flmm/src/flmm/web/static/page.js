// The page of `flmm demo`: pictures, conversations about them, phrases of the visitor, and closer looks.

import { $, busy, chip, make, percentOf, scoreOf, show } from "./masks.js";
import { ask as askServer, file, get, send, sendPicture } from "./server.js";

// Pictures of this visit by name: {picture, history: [[question, answer]], turns, tables, looks: nodes}.
const visits = new Map();
let current = null; // the visit on show
let choices = 0; // of pictures, so that the last choice wins
let remembers = true;

// ---- work that takes time ----

// Does a piece of work in a panel: its fields wait, the seconds are counted, it can be cancelled, a fault stands below.
async function working(panel, what, work) {
  const status = panel.querySelector(".status");
  const buttons = [...panel.querySelectorAll("button[type=submit], .again")];
  const cancel = panel.querySelector(".cancel");
  const control = new AbortController();
  const begin = performance.now();
  let ahead = 0;
  const tick = () => {
    const seconds = Math.round((performance.now() - begin) / 1000);
    const place = ahead ? `, ${ahead} before you` : seconds > 60 ? ", still at work" : "";
    status.textContent = `${what} … ${seconds} s${place}`;
  };
  const place = (before) => {
    ahead = before;
    tick();
  };
  say(status, "", false);
  buttons.forEach((button) => (button.disabled = true));
  if (cancel) {
    cancel.hidden = false;
    cancel.onclick = () => control.abort();
  }
  busy(true);
  tick();
  const clock = setInterval(tick, 1000);
  try {
    say(status, (await work(control.signal, place)) ?? "", false);
  } catch (fault) {
    const isCancelled = fault.name === "AbortError";
    say(status, isCancelled ? "cancelled" : fault.message, !isCancelled);
    if (fault.field) {
      fault.field.setAttribute("aria-invalid", "true");
      fault.field.focus();
    }
  } finally {
    clearInterval(clock);
    busy(false);
    buttons.forEach((button) => (button.disabled = false));
    if (cancel) cancel.hidden = true;
  }
}

function say(status, text, isError) {
  status.setAttribute("role", isError ? "alert" : "status");
  status.classList.toggle("error", isError);
  status.textContent = text;
}

// The text of a field; a fault that marks the field where it is empty.
function typed(field, message) {
  field.removeAttribute("aria-invalid");
  if (field.value.trim()) return field.value.trim();
  throw Object.assign(new Error(message), { field });
}

function visit() {
  if (!current) throw Object.assign(new Error("choose a picture first"), { field: $("file") });
  return current;
}

const isOnShow = (one) => one === current;

// ---- pictures ----

async function choose(what, load) {
  const number = ++choices;
  const note = $("note");
  say(note, `reading ${what} …`, false);
  try {
    const picture = await load();
    if (number !== choices) return; // another one was chosen meanwhile
    visits.set(picture.picture, {
      picture: { ...picture, name: what },
      history: [],
      turns: make("div"),
      tables: [],
      looks: make("div"),
      found: null,
    });
    bring(picture.picture);
  } catch (fault) {
    if (number === choices) say(note, fault.message, true);
  }
}

// Puts a picture of this visit on show, with its conversation.
function bring(name) {
  choices += 1;
  current = visits.get(name);
  document.title = `${current.picture.name} · flmm demo`;
  say($("note"), current.picture.note, false);
  $("turns").replaceChildren(current.turns);
  $("seen").replaceChildren(current.looks);
  $("table").tBodies[0].replaceChildren(...current.tables);
  $("table").hidden = current.tables.length === 0;
  // What a panel said was about another picture, unless it is still at work.
  for (const name of PANELS)
    if ($(name).querySelector(".cancel").hidden) say($(name).querySelector(".status"), "", false);
  $("stages").hidden = false;
  $("invite").replaceChildren(make("b", { textContent: "Choose another picture" }), ", drop one here, or paste one");
  offerToForget();
  show(current.picture, current.found);
  $("earlier").hidden = visits.size < 2;
  $("earlier").replaceChildren(...[...visits.keys()].map(thumbnail));
}

function thumbnail(name) {
  const { picture } = visits.get(name);
  const image = make("img", { src: picture.source, alt: "" });
  const button = make("button", { type: "button", title: picture.name }, image);
  button.setAttribute("aria-label", `show ${picture.name} again`);
  button.setAttribute("aria-pressed", isOnShow(visits.get(name)));
  button.onclick = () => bring(name);
  return button;
}

// Shows a result with its own picture: at once if that is on show, else the note says where it is.
function arrive(one, found, only = null) {
  one.found = found;
  if (isOnShow(one)) {
    show(one.picture, found, only);
    if (matchMedia("(max-width: 52rem)").matches) $("stages").scrollIntoView({ block: "nearest" });
  } else say($("note"), `there is an answer about ${one.picture.name}: choose it above`, false);
}

const upload = (blob) => choose(blob.name || "the pasted picture", () => sendPicture(blob, blob.name || "pasted.png"));

// ---- asking ----

async function ask(signal, place) {
  const one = visit();
  const question = typed($("question"), "type a question first");
  const said = make("p", { className: "said" });
  const asked = make("p", { className: "asked", textContent: question });
  const turn = make("div", { className: "turn" }, asked, said);
  one.turns.prepend(turn);
  const history = remembers ? one.history : [];
  const heard = (event) => ("piece" in event ? said.append(event.piece) : place(event.ahead));
  let reply;
  try {
    reply = await askServer({ picture: one.picture.picture, question, history, ...chosen() }, heard, signal);
  } catch (fault) {
    turn.remove();
    throw fault;
  }
  $("question").value = "";
  one.history = [...one.history, [question, reply.text.trim()]];
  offerToForget();
  const { found } = reply;
  if (found) said.replaceChildren(...highlighted(one, found));
  else said.replaceChildren(reply.text);
  turn.append(otherWords(one, question, reply, said));
  arrive(one, found);
  const forgotten = history.length - reply.remembered;
  const memory = forgotten > 0 ? ` The first ${forgotten} questions no longer fit the model's memory.` : "";
  return `${summary(found)}${memory}`;
}

function summary(found) {
  if (!found) return "The answer names nothing that is there, so nothing is marked.";
  const count = found.phrases.length;
  const missing = found.phrases.filter((one) => one.area === 0).length;
  const absent = new Set(found.phrases.filter((one) => !one.in_picture).map((one) => one.phrase));
  const named = absent.size ? ` Not in the picture: ${[...absent].join(", ")}.` : "";
  const unknown = found.unknown.length ? ` Not among what these heads know: ${found.unknown.join(", ")}.` : "";
  return `${count} ${count === 1 ? "phrase" : "phrases"}${missing ? `, ${missing} not found` : ""}.${named}${unknown}`;
}

function highlighted(one, found) {
  return found.pieces.map(({ text, phrase }) => (phrase === null ? text : chip(one.picture, found, phrase, text)));
}

function offerToForget() {
  $("forget").hidden = !remembers || !current || current.history.length === 0;
}

function forget() {
  current.history = [];
  current.turns.prepend(make("p", { className: "note", textContent: "new conversation" }));
  offerToForget();
}

// Words that the reader marks in an answer, or types, are grounded from what was kept of it.
function otherWords(one, question, reply, said) {
  const words = make("input", { placeholder: "other words of this answer" });
  words.setAttribute("aria-label", "Other words of this answer");
  const button = make("button", { type: "button", className: "again", textContent: "Find" });
  const more = make("div", { className: "more" });
  const status = make("p", { className: "status" });
  const box = make("div", {}, make("div", { className: "row" }, words, button), status, more);
  let marked = null; // {text, span} of the marked words
  document.addEventListener("selectionchange", () => {
    const span = selectedSpan(said, reply.text);
    if (!span) return;
    marked = { text: [...reply.text].slice(...span).join(""), span };
    words.value = marked.text;
  });
  const run = () =>
    working(box, "finding", async (signal) => {
      const text = typed(words, "mark words in the answer first, or type them");
      const isMarked = marked && marked.text.trim() === text;
      const found = isMarked
        ? await send("api/mark-span", { answer: reply.answer, span: marked.span, ...chosen() }, signal)
        : await send("api/mark", { answer: reply.answer, phrases: [text], ...chosen() }, signal);
      more.append(...found.phrases.map((_, index) => chip(one.picture, found, index)));
      words.value = "";
      arrive(one, found);
      return summary(found);
    });
  const again = make("button", { type: "button", className: "link", textContent: "Ask this question again" });
  again.onclick = () => {
    bring(one.picture.picture);
    open("ask");
    $("question").value = question;
    $("ask").requestSubmit();
  };
  button.onclick = async () => {
    await run();
    if (status.textContent.endsWith("ask again")) more.append(again); // the server has forgotten the answer
  };
  words.onkeydown = (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    button.click();
  };
  return box;
}

// The characters [start, end] of an answer that are selected, without spaces around them; null where none are.
function selectedSpan(said, text) {
  const selection = getSelection();
  if (selection.isCollapsed || selection.rangeCount === 0) return null;
  const range = selection.getRangeAt(0);
  if (!said.contains(range.startContainer) || !said.contains(range.endContainer)) return null;
  const before = document.createRange();
  before.setStart(said, 0);
  before.setEnd(range.startContainer, range.startOffset);
  const wanted = range.toString();
  // Python counts letters, not halves of them.
  const skipped = wanted.length - wanted.trimStart().length;
  const first = [...before.toString()].length + skipped;
  const end = first + [...wanted.trim()].length;
  return end > first && [...text].slice(first, end).join("") === wanted.trim() ? [first, end] : null;
}

// ---- phrases of the visitor, and closer looks ----

async function ground(signal) {
  const one = visit();
  const phrases = typed($("phrases"), "type one or more phrases, each on its own line").split("\n");
  const fields = { picture: one.picture.picture, phrases, each_alone: $("alone").checked, ...chosen() };
  const found = await send("api/ground", fields, signal);
  one.tables = found.phrases.map((phrase, index) => {
    const area = `${percentOf(phrase)} · ${phrase.area} px`;
    const box = phrase.area ? phrase.bbox.join(", ") : "not found";
    const cell = make("td", {}, chip(one.picture, found, index));
    return make("tr", {}, cell, named("score", scoreOf(phrase)), named("area", area), named("box", box));
  });
  if (isOnShow(one)) {
    $("table").tBodies[0].replaceChildren(...one.tables);
    $("table").hidden = false;
  }
  arrive(one, found);
  return summary(found);
}

// A cell that a narrow window shows with its name, in place of the table's head.
function named(name, text) {
  const cell = make("td", {}, text);
  cell.dataset.name = name;
  return cell;
}

async function look(signal) {
  const one = visit();
  const question = typed($("detail"), "type a question first");
  const focus = document.querySelector("input[name=focus]:checked").value;
  const seen = await send("api/look", { picture: one.picture.picture, question, focus }, signal);
  const masks = seen.mask ? [{ phrase: seen.thought || seen.question, mask: seen.mask, colour: seen.colour, area: 1 }] : [];
  const found = { phrases: masks, caption: "what matters", box: seen.box, colour: seen.colour };
  const list = make("dl");
  for (const [name, value] of Object.entries({ "what matters": seen.thought, answer: seen.answer || "(nothing)" }))
    if (value) list.append(make("dt", { textContent: name }), make("dd", { textContent: value }));
  const close = make("img", { src: seen.crop, alt: "the part that was looked at" });
  list.append(make("dt", { textContent: "looked at" }), make("dd", {}, close));
  const again = make("button", { type: "button", className: "link", textContent: seen.question });
  again.onclick = () => show(one.picture, found);
  one.looks.prepend(make("div", { className: "turn" }, again, list));
  arrive(one, found);
  return "";
}

// ---- the page ----

const PANELS = ["ask", "ground", "look"];

function open(name) {
  for (const other of PANELS) {
    const isOpen = other === name;
    $(other).hidden = !isOpen;
    $(`tab-${other}`).setAttribute("aria-selected", isOpen);
    $(`tab-${other}`).tabIndex = isOpen ? 0 : -1;
  }
}

function panel(name, what, work) {
  $(name).onsubmit = (event) => {
    event.preventDefault();
    working($(name), what, work);
  };
  const tab = $(`tab-${name}`);
  tab.onclick = () => open(name);
  tab.onkeydown = (event) => {
    const place = PANELS.indexOf(name);
    const target = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: PANELS.length - 1 }[event.key];
    if (target === undefined) return;
    event.preventDefault();
    const other = PANELS[(target + PANELS.length) % PANELS.length];
    open(other);
    $(`tab-${other}`).focus();
  };
}

async function download(button) {
  $("failed").textContent = "";
  try {
    const url = URL.createObjectURL(await file(button.dataset.path));
    make("a", { href: url, download: `masks.${button.id}` }).click();
    URL.revokeObjectURL(url);
  } catch (fault) {
    $("failed").textContent = fault.message;
  }
}

function view(kind) {
  $("stages").dataset.view = kind;
  for (const name of ["masks", "heat"]) $(`view-${name}`).setAttribute("aria-pressed", name === kind);
}

function takePictures() {
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
  document.addEventListener("paste", (event) => {
    const pasted = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
    if (pasted) upload(pasted);
  });
}

function offerExamples(names) {
  $("examples").hidden = names.length === 0;
  names.forEach((name, example) => {
    const image = make("img", { src: `example/${example}`, alt: "" });
    const button = make("button", { type: "button", title: name }, image);
    button.setAttribute("aria-label", `example ${example + 1}: ${name}`);
    button.onclick = () => choose(name, () => send("api/example", { example }));
    $("examples").append(button);
  });
}

// What makes the masks, where the page has a choice.
const chosen = () => ({ grounder: $("grounder").value, outlines: $("outlines").value });

function offerMakers({ grounders, outlines, looks }) {
  for (const [name, values] of Object.entries({ grounder: grounders, outlines })) {
    $(name).replaceChildren(...values.map((value) => make("option", { value, textContent: value })));
    $(name).parentElement.hidden = values.length < 2;
  }
  $("makers").hidden = grounders.length < 2 && outlines.length < 2;
  $("tab-look").hidden = !looks; // a closer look is led by trained heads
}

async function begin() {
  panel("ask", "answering", ask);
  panel("ground", "finding", ground);
  panel("look", "looking", look);
  takePictures();
  $("forget").onclick = forget;
  for (const kind of ["png", "json"]) $(kind).onclick = () => download($(kind));
  for (const kind of ["masks", "heat"]) $(`view-${kind}`).onclick = () => view(kind);
  view("masks");
  const about = await get("api/about");
  $("model").textContent = about.model;
  remembers = about.history;
  $("memory").textContent = remembers
    ? "The model remembers the earlier questions about this picture."
    : "Each question stands for itself: the model does not remember earlier ones.";
  offerMakers(about);
  offerExamples(about.examples);
}

begin();
