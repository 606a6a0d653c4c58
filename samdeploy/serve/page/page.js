"use strict";
const at = (id) => document.getElementById(id);
let models = [], key = "", shown = null, asking = null;

const address = (what) => {
  const one = models[at("model").value];
  return `/v2/models/${encodeURIComponent(one.name)}/versions/${encodeURIComponent(one.version)}/${what}`;
};

async function ask(path, options = {}) {
  if (/[^ -~]/.test(key)) throw new Error("the key has a character that is not ASCII");
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const answer = await fetch(path, { ...options, headers }).catch((error) => {
    throw error.name === "AbortError" ? error : new Error("the server does not answer");
  });
  if (answer.status === 401) at("key-form").hidden = false;
  if (!answer.ok) {
    let text = `${answer.status} ${answer.statusText}`;
    try { text = (await answer.json()).error; } catch { /* the status says it */ }
    throw new Error(text);
  }
  return answer;
}

function problem(text) {
  at("problem").textContent = text;
  at("problem").hidden = !text;
}

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  return made;
}

async function start() {
  try {
    models = await (await ask("/page/models")).json();
  } catch (error) {
    if (key || at("key-form").hidden) problem(error.message); // without a key: the form asks for it
    return;
  }
  problem("");
  at("key-form").hidden = true;
  at("model").replaceChildren(...models.map((one, place) => new Option(`${one.name} : ${one.version}`, place)));
  at("choice").hidden = models.length < 2;
  card();
}

function card() {
  const one = models[at("model").value];
  at("facts").replaceChildren(...one.facts.flatMap(([name, text]) => [element("dt", name), element("dd", text)]));
  at("state").textContent = one.ready ? `${one.name} is ready` : `${one.name} is not ready`;
  if (shown) predict(shown);
}

function show(id, file) {
  URL.revokeObjectURL(at(id).src);
  at(id).src = URL.createObjectURL(file);
}

// Browsers read fewer formats than the server (no TIFF): then its pixels are shown.
async function preview(file, signal) {
  at("image").onerror = null;
  try {
    const answer = await ask(`${address("explain")}?layer=image`, { method: "POST", body: file, signal });
    show("image", await answer.blob());
    at("caption").textContent += " (as the server decodes it)";
  } catch (error) {
    if (error.name !== "AbortError") at("shown").hidden = true; // the answer to predict says why
  }
}

async function predict(file) {
  asking?.abort();
  asking = new AbortController();
  const { signal } = asking;
  shown = file;
  problem("");
  at("answer").hidden = true;
  at("map").hidden = at("slider").hidden = at("legend").hidden = true;
  at("image").onerror = () => preview(file, signal);
  show("image", file);
  at("image").alt = at("caption").textContent = file.name || "pasted image";
  at("shown").hidden = false;
  const begin = performance.now();
  try {
    const answer = await ask(address("predict"), { method: "POST", body: file, signal });
    const spent = performance.now() - begin;
    draw(await answer.json(), answer.headers.get("Server-Timing"), spent);
  } catch (error) {
    if (error.name !== "AbortError") problem(error.message);
    return;
  }
  if (models[at("model").value].maps) await explain(0);
}

function draw(answer, timing, spent) {
  document.querySelector("main").classList.add("answered");
  at("verdict").replaceChildren(element("strong", answer.label), ` ${percent(answer.probability)}`);
  if (answer.rejected) at("verdict").append(element("span", "Rejected: too unsure to act on.", { class: "note" }));
  at("classes").replaceChildren(...answer.top.map(({ label, probability }, place) => {
    const button = element("button", "", { type: "button", "aria-pressed": "false" });
    button.append(element("span", label), element("span", percent(probability)),
      element("progress", "", { max: 1, value: probability, "aria-label": `probability of ${label}` }));
    button.addEventListener("click", () => explain(place));
    const item = element("li");
    item.append(button);
    item.dataset.label = label;
    return item;
  }));
  const parts = Object.fromEntries([...(timing || "").matchAll(/(\w+);dur=([\d.]+)/g)].map((one) => [one[1], one[2]]));
  at("times").textContent = parts.engine
    ? `decoding ${parts.decode} ms, queue and engine ${parts.engine} ms, with the way here and back ${spent.toFixed(0)} ms`
    : `${spent.toFixed(0)} ms`;
  at("answer").hidden = false;
}

async function explain(place) {
  if (!models[at("model").value].maps) return;
  const items = [...at("classes").children];
  items.forEach((item, number) => item.firstChild.setAttribute("aria-pressed", String(number === place)));
  const label = items[place].dataset.label;
  const path = `${address("explain")}?layer=map&class=${encodeURIComponent(label)}`;
  try {
    const answer = await ask(path, { method: "POST", body: shown, signal: asking.signal });
    const map = await answer.blob();
    if (items[place].firstChild.getAttribute("aria-pressed") === "false") return; // another class was chosen meanwhile
    show("map", map);
    at("map").alt = `map of where the network sees ${label}`;
    at("map").hidden = at("slider").hidden = at("legend").hidden = false;
  } catch (error) {
    if (error.name !== "AbortError") problem(error.message);
  }
}

const percent = (share) => `${(100 * share).toFixed(share > 0.9995 || share < 0.0995 ? 2 : 1)} %`;
const taken = (files) => { if (files?.length) predict(files[0]); };

for (const id of ["file", "camera"]) at(id).addEventListener("change", (event) => taken(event.target.files));
at("model").addEventListener("change", card);
at("opacity").addEventListener("input", (event) => { at("map").style.opacity = event.target.value / 100; });
at("map").style.opacity = 0.6;
at("key-form").addEventListener("submit", (event) => { event.preventDefault(); key = at("key").value; start(); });
document.addEventListener("paste", (event) => taken(event.clipboardData.files));
document.addEventListener("dragover", (event) => { event.preventDefault(); at("drop").classList.add("over"); });
document.addEventListener("dragleave", () => at("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  taken(event.dataTransfer.files);
});
start();
