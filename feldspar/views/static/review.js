// Review by keys and buttons: what is decided is sent, and the sample is shown as the server has it then.
"use strict";

const AT_ONCE = { accept: "accepted", withdraw: "withdrawn" };
const KEYS = { a: "accept", r: "reject", e: "edit", u: "withdraw" };

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const here = document.activeElement.closest("[data-sample]");
  if (event.key === "Escape" && here) { closeForm(here); return; }
  if (/^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName)) return;
  if (event.key === "j" || event.key === "k") { move(here, event.key === "j" ? 1 : -1, event); return; }
  // A key that is held down is one press.
  if (!here || event.repeat) return;
  if (event.key === "o") { event.preventDefault(); const look = here.querySelector("details.look"); if (look) look.open = !look.open; }
  const button = here.querySelector(`[data-do="${KEYS[event.key]}"]`);
  if (button) { event.preventDefault(); act(here, button.dataset.do); }
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-sample] [data-do]");
  if (button) act(button.closest("[data-sample]"), button.dataset.do);
});

document.addEventListener("submit", (event) => {
  const form = event.target.closest("[data-sample] form[data-verdict]");
  if (!form) return;
  event.preventDefault();
  const said = Object.fromEntries(new FormData(form));
  send(form.closest("[data-sample]"), { verdict: form.dataset.verdict, ...said });
});

// The next or the previous sample; behind the last one, the next page.
function move(here, by, event) {
  const items = [...document.querySelectorAll("[data-sample]")];
  if (!items.length) return;
  event.preventDefault();
  const next = here ? items[items.indexOf(here) + by] : items[0];
  if (next) { next.focus(); next.scrollIntoView({ block: "nearest" }); return; }
  const page = document.querySelector(by > 0 ? "a[rel=next]" : "a[rel=prev]");
  if (page) page.click();
}

// A decision that is on its way takes no second one: `aria-busy` until the reply.
function act(item, what) {
  if (!item.dataset.url || item.ariaBusy) return;
  if (what === "cancel") { closeForm(item); return; }
  if (what in AT_ONCE) { send(item, { verdict: AT_ONCE[what] }); return; }
  const place = item.querySelector(".review-form");
  const form = document.getElementById(`${what}-form`).content.cloneNode(true).firstElementChild;
  place.replaceChildren(form);
  place.hidden = false;
  if (what === "edit") {
    for (const name of ["question", "answer"]) {
      const now = item.querySelector(`[data-now=${name}]`);
      form.elements[name].value = now ? now.textContent : item.dataset[name];
    }
    const isText = item.dataset.kind === "document";
    form.querySelector("[data-question]").hidden = isText;
    form.elements.question.required = !isText;
  }
  form.querySelector("label:not([hidden]) input, label:not([hidden]) textarea").focus();
}

function closeForm(item) {
  const place = item.querySelector(".review-form");
  if (!place || place.hidden) return;
  place.replaceChildren();
  place.hidden = true;
  item.focus();
}

async function send(item, said) {
  if (item.ariaBusy) return;
  item.ariaBusy = "true";
  const problem = item.querySelector(".review-problem");
  problem.textContent = "";
  const body = JSON.stringify({ sample: item.dataset.sample, key: item.dataset.key, ...said });
  try {
    const reply = await fetch(item.dataset.url, { method: "POST", headers: { "Content-Type": "application/json" }, body });
    const text = await reply.text();
    if (!reply.ok) throw new Error(text);
    const shown = document.createElement("template");
    // The server's own page, everything in it escaped.
    shown.innerHTML = text;
    const next = shown.content.firstElementChild;
    // Meanwhile another list may be shown, or its reader have gone on to another sample.
    if (!item.isConnected) return;
    const isHere = item.contains(document.activeElement);
    item.replaceWith(next);
    htmx.process(next);
    if (!isHere) return;
    const items = [...document.querySelectorAll("[data-sample]")];
    const then = said.verdict === "withdrawn" ? next : items[items.indexOf(next) + 1] || next;
    then.focus();
    then.scrollIntoView({ block: "nearest" });
  } catch (error) {
    item.ariaBusy = null;
    problem.textContent = `Not saved: ${error.message}`;
  }
}
