// The picture with its layers: masks with numbers, attention, the box of a closer look, and the phrases to click on.

export const $ = (id) => document.getElementById(id);

export function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

// What is on show: a picture, and {phrases: [{phrase, colour, mask, attention, area, score, centre}], result, box, caption}.
let picture = null;
let shown = null;
let chosen = null; // number of the phrase that is shown alone; null shows all

// Puts a picture with masks on show; `only` is the number of a phrase to show alone. The same choice again shows all.
export function show(ofPicture, found, only = null) {
  chosen = found && found === shown && only === chosen ? null : only;
  picture = ofPicture;
  shown = found;
  draw();
}

// While work on the picture is done, the old result is there, but grey.
export function busy(isBusy) {
  $("stages").setAttribute("aria-busy", isBusy);
}

export function percentOf(phrase) {
  return `${(100 * phrase.share).toFixed(1)} %`;
}

export function scoreOf(phrase) {
  return phrase.score.toFixed(2);
}

// A phrase to click on, in a text that can be marked with the mouse: so it is no button element, but acts as one.
// Its number and "not found" come from the style sheet: the text of an answer stays what it is.
export function chip(ofPicture, found, index, text = found.phrases[index].phrase) {
  const phrase = found.phrases[index];
  const node = make("span", { className: "phrase", tabIndex: 0, textContent: text });
  node.setAttribute("role", "button");
  if (found.phrases.length > 1) node.dataset.number = index + 1;
  const share = `${percentOf(phrase)} of the picture`;
  const place = phrase.area === 0 ? "not found" : phrase.in_picture ? share : `not in the picture, ${share}`;
  node.title = `${place}, score ${scoreOf(phrase)}`;
  const choose = () => show(ofPicture, found, index);
  node.onclick = () => getSelection().isCollapsed && choose();
  node.onkeydown = (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    choose();
  };
  node.of = { found, index };
  mark(node);
  return node;
}

function draw() {
  const phrases = shown ? shown.phrases : [];
  // What is not in the picture has a mask, too: it is shown for a phrase that is chosen, and not among all.
  const isDrawn = (index) => (chosen === null ? phrases[index].in_picture !== false : index === chosen);
  const numbers = phrases.map((_, index) => index).filter(isDrawn);
  const layers = numbers.map((index) => overlay(phrases[index].mask, "mask", `mask of ${phrases[index].phrase}`));
  if (phrases.length > 1)
    for (const index of numbers) if (phrases[index].centre) layers.push(numberAt(phrases[index], index));
  fill($("stage"), layers);
  if (shown && shown.box) $("stage").append(frame(shown.box, shown.colour));
  $("caption").textContent = captionOf(phrases, numbers);

  const heated = phrases[numbers[0] ?? 0];
  const hasHeat = Boolean(heated && heated.attention);
  $("heat").hidden = !hasHeat;
  $("views").hidden = !hasHeat;
  if (hasHeat) {
    fill($("heatstage"), [overlay(heated.attention, "heat", `attention of ${heated.phrase}`)]);
    $("heatcaption").textContent = `attention of “${heated.phrase}”`;
  }

  const found = shown && shown.result ? shown : null;
  $("legend").replaceChildren(...(found ? phrases.map((_, index) => chip(picture, found, index)) : []));
  $("hint").hidden = !found || phrases.length < 2;
  $("downloads").hidden = !found;
  $("failed").textContent = "";
  for (const kind of ["png", "json"]) $(kind).dataset.path = found ? `api/result/${found.result}.${kind}` : "";
  document.querySelectorAll(".phrase").forEach(mark);
}

// Says what the picture shows: `numbers` are the phrases whose masks are drawn.
function captionOf(phrases, numbers) {
  if (phrases.length === 0) return shown && shown.caption ? shown.caption : "picture";
  if (chosen === null && numbers.length === 0) return "nothing of this is in the picture";
  if (chosen === null) return shown.caption || `masks of: ${numbers.map((one) => phrases[one].phrase).join(", ")}`;
  return `mask of “${phrases[chosen].phrase}”`;
}

function fill(stage, layers) {
  stage.style.aspectRatio = `${picture.width} / ${picture.height}`;
  stage.style.maxWidth = `${(68 * picture.width) / picture.height}vh`;
  stage.replaceChildren(make("img", { src: picture.source, alt: picture.name || "the picture" }), ...layers);
}

function overlay(source, kind, alt) {
  return make("img", { src: source, className: kind, alt });
}

const percent = (part, whole) => `${(100 * part) / whole}%`;

function numberAt(phrase, index) {
  const [x, y] = phrase.centre;
  const node = make("span", { className: "number on-picture", textContent: index + 1 });
  node.style.left = percent(x, picture.width);
  node.style.top = percent(y, picture.height);
  paint(node, phrase.colour);
  return node;
}

function frame([x0, y0, x1, y1], colour) {
  const box = make("div", { className: "box" });
  box.style.left = percent(x0, picture.width);
  box.style.top = percent(y0, picture.height);
  box.style.width = percent(x1 - x0, picture.width);
  box.style.height = percent(y1 - y0, picture.height);
  box.style.borderColor = colour;
  return box;
}

function mark(node) {
  const { found, index } = node.of;
  const pressed = found === shown && index === chosen;
  const faded = found === shown && chosen !== null && !pressed;
  node.setAttribute("aria-pressed", pressed);
  node.classList.toggle("faded", faded);
  const { area, colour, in_picture: inPicture } = found.phrases[index];
  node.classList.toggle("missing", area === 0);
  node.classList.toggle("absent", !inPicture);
  node.style.borderColor = colour;
  if (faded || area === 0 || !inPicture) {
    node.style.backgroundColor = "#fff";
    node.style.color = "#222";
  } else paint(node, colour);
}

// Text on a colour is black or white, whichever is easier to read (contrast after WCAG 2).
function paint(node, colour) {
  const linear = [1, 3, 5].map((place) => {
    const level = parseInt(colour.slice(place, place + 2), 16) / 255;
    return level <= 0.04045 ? level / 12.92 : ((level + 0.055) / 1.055) ** 2.4;
  });
  const luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  node.style.backgroundColor = colour;
  node.style.color = 1.05 / (luminance + 0.05) >= (luminance + 0.05) / 0.05 ? "#fff" : "#000";
}
