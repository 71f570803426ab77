// Keys, buttons that have something done, and the chat page. What only shows works without a script.
"use strict";

document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (/^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName)) return;
  const search = document.querySelector("input[type=search]");
  if (search) { event.preventDefault(); search.focus(); search.select(); }
});

// A whole page that is loaded again shows what went wrong, as a first load does.
document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.isError && event.detail.target.id === "content") event.detail.shouldSwap = true;
});

// Buttons that have something done: data-post is where, data-body what, data-go the page to go to then.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-post]");
  if (!button) return;
  const problem = button.closest("form, main").querySelector(".problem");
  button.disabled = true;
  if (problem) problem.textContent = "";
  try {
    const reply = await fetch(button.dataset.post, { method: "POST", headers: { "Content-Type": "application/json" }, body: button.dataset.body || JSON.stringify(asked(button.form)) });
    if (!reply.ok) throw new Error(await reply.text());
    const told = await reply.json();
    if (button.dataset.go) location.assign(button.dataset.go.replace("RUN", encodeURIComponent(told.run)).replace("RECIPE", encodeURIComponent(told.recipe)));
  } catch (error) {
    button.disabled = false;
    if (problem) problem.textContent = error.message;
  }
});

// A recipe's form: its fields that say something other than the recipe, and one setting a line.
function asked(form) {
  const fields = [...form.elements].filter((field) => "own" in field.dataset && field.value.trim() && field.value.trim() !== field.dataset.own);
  const lines = form.elements.settings.value.split("\n").map((line) => line.trim()).filter(Boolean);
  return { recipe: form.elements.recipe.value, settings: [...fields.map((f) => `${f.name}=${f.value.trim()}`), ...lines] };
}

const form = document.getElementById("chat-form");
if (form) startChat(form);

function startChat(form) {
  const turns = document.getElementById("turns");
  const template = document.getElementById("turn");
  const stop = document.getElementById("chat-stop");
  const question = document.getElementById("question");
  let histories = {};
  let asking = null;

  question.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); form.requestSubmit(); }
  });
  stop.addEventListener("click", () => asking && asking.abort());
  document.getElementById("chat-reset").addEventListener("click", () => {
    if (asking) asking.abort();
    histories = {};
    turns.replaceChildren();
    question.focus();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = question.value.trim();
    if (!text || asking) return;
    const turn = template.content.cloneNode(true);
    turn.querySelector(".said").textContent = text;
    const places = [...turn.querySelectorAll("[data-who]")];
    const reasons = [...turn.querySelectorAll("[data-why]")];
    turns.append(turn);
    question.value = "";
    asking = new AbortController();
    stop.hidden = false;
    const ask = (place) => answer(place.dataset.url, histories[place.dataset.who] ||= [], text, place, asking.signal);
    const answered = Promise.all(places.map(ask));
    for (const details of reasons) {
      details.addEventListener("toggle", async () => {
        await answered;
        const said = places.find((place) => place.dataset.who === "taught").textContent;
        explain(details.dataset.why, details.dataset.of === "question" ? text : `${text}\n${said}`, details);
      }, { once: true });
    }
    await answered;
    asking = null;
    stop.hidden = true;
    question.focus();
  });
}

async function answer(url, history, text, place, signal) {
  history.push({ role: "user", content: text });
  place.textContent = "";
  let said = "";
  try {
    const reply = await fetch(url, { method: "POST", signal, headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ messages: history }) });
    if (!reply.ok) throw new Error(await reply.text());
    const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      said += part.value;
      place.textContent = said;
    }
    if (!said) place.textContent = "(it said nothing)";
  } catch (error) {
    place.textContent = said + (signal.aborted ? " (stopped)" : ` (${error.message})`);
  }
  history.push({ role: "assistant", content: said });
}

async function explain(url, text, details) {
  const place = details.querySelector(".why");
  const reply = await fetch(url, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ text }) });
  if (!reply.ok) { place.textContent = await reply.text(); return; }
  // The server's own page, everything in it escaped.
  place.innerHTML = await reply.text();
}
