// A leaf's form: what is typed is checked on the server as a file, and findings come to their fields.
"use strict";

const authoring = document.getElementById("authoring");
if (authoring) startAuthoring(authoring);

function startAuthoring(room) {
  const form = document.getElementById("leaf-form");
  const examples = document.getElementById("examples");
  const status = document.getElementById("leaf-status");
  const problem = document.getElementById("leaf-problem");
  let waiting = null;
  let asked = 0;
  let edits = 0;

  const post = async (url, body) => {
    const about = { taxonomy: room.dataset.taxonomy, path: room.dataset.path };
    const reply = await fetch(url, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ ...about, ...body }) });
    if (!reply.ok) throw new Error(await reply.text());
    return reply.json();
  };
  const clone = (id) => document.getElementById(id).content.firstElementChild.cloneNode(true);
  const value = (place, name) => place.querySelector(`[data-field="${name}"]`).value;
  const old = (place) => (place.dataset.old === undefined ? null : Number(place.dataset.old));
  const read = () => ({
    created_by: value(form, "created_by"), domain: value(form, "domain"), description: value(form, "description"), attribution: value(form, "attribution"),
    digest: room.dataset.digest,
    examples: [...examples.children].map((example) => ({
      old: old(example), context: value(example, "context"),
      pairs: [...example.querySelectorAll(".pair")].map((pair) => ({ old: old(pair), question: value(pair, "question"), answer: value(pair, "answer") })),
    })),
  });
  // Where the findings of a field stand: "example-0-pair-1-answer".
  const placeOf = (field) => {
    const parts = /^example-(\d+)(?:-pair-(\d+))?(?:-(\w+))?$/.exec(field);
    if (!parts) return form.querySelector(`:scope > .findings[data-of="${field}"], .two > div > .findings[data-of="${field}"]`);
    const example = examples.children[Number(parts[1])];
    const pair = parts[2] === undefined ? example : example && example.querySelectorAll(".pair")[Number(parts[2])];
    return pair && pair.querySelector(`.findings[data-of="${parts[3] || (parts[2] === undefined ? "example" : "pair")}"]`);
  };
  const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);
  const show = (told) => {
    form.querySelectorAll(".findings").forEach((list) => list.replaceChildren());
    // Of a leaf in which nothing is yet, everything is missing: what to begin with is said instead.
    const begin = document.getElementById("leaf-begin");
    const isEmpty = begin && !examples.children.length;
    if (begin) begin.hidden = !isEmpty;
    for (const found of isEmpty ? [] : told.findings) {
      const item = document.createElement("li");
      const word = document.createElement("b");
      item.className = found.severity;
      word.textContent = `${{ error: "✕", warning: "!", note: "–" }[found.severity]} ${found.severity} ${found.code}: `;
      item.append(word, `${sentence(found.message)}. ${sentence(found.cure)}.`);
      (placeOf(found.field) || form.querySelector('.findings[data-of=""]')).append(item);
    }
    const diff = document.getElementById("leaf-diff");
    diff.replaceChildren(...(told.diff || "nothing").split("\n").map((line) => {
      const span = document.createElement("span");
      span.className = line.startsWith("+") ? "added" : line.startsWith("-") ? "removed" : "";
      span.textContent = line || " ";
      return span;
    }));
    document.querySelectorAll("[data-chunk]").forEach((passage) => {
      const has = told.covered.includes(passage.dataset.chunk);
      const tag = passage.querySelector("[data-covered]");
      tag.classList.toggle("good", has);
      tag.textContent = has ? "✓ has a seed" : "no seed yet";
    });
    const errors = told.findings.filter((found) => found.severity === "error").length;
    const num = told.findings.length;
    status.textContent = isEmpty ? "" : `${num} finding${num === 1 ? "" : "s"}, ${errors} of them errors${errors ? ": runs stop at a leaf with errors" : ""}`;
  };
  const check = async () => {
    const mine = ++asked;
    try {
      const told = await post("/leaf/check", read());
      if (mine !== asked) return;
      problem.textContent = "";
      show(told);
    } catch (error) {
      if (mine === asked) problem.textContent = error.message;
    }
  };
  const soon = () => {
    edits += 1;
    document.getElementById("leaf-next").hidden = true;
    clearTimeout(waiting);
    waiting = setTimeout(check, 500);
  };

  // What a teacher proposes stands apart from the form until somebody keeps it.
  const propose = async (button) => {
    const said = document.getElementById("draft-problem");
    const label = button.textContent;
    said.textContent = "";
    button.disabled = true;
    button.textContent = "Asking …";
    try {
      const told = await post("/leaf/drafts", { recipe: button.dataset.recipe });
      const drafts = document.getElementById("drafts");
      drafts.replaceChildren();
      for (const context of new Set(told.drafts.map((draft) => draft.context))) {
        const example = drafts.appendChild(clone("example-template"));
        const note = clone("draft-template");
        note.querySelector("[data-teacher]").textContent = button.dataset.teacher;
        example.classList.add("draft");
        example.querySelector("legend").after(note);
        example.querySelector('[data-field="context"]').value = context;
        const pairs = example.querySelector(".pairs");
        pairs.replaceChildren();
        for (const draft of told.drafts.filter((one) => one.context === context)) {
          const pair = pairs.appendChild(clone("pair-template"));
          for (const name of ["question", "answer"]) pair.querySelector(`[data-field="${name}"]`).value = draft[name];
        }
      }
      drafts.firstElementChild.scrollIntoView({ block: "center" });
      drafts.querySelector("textarea").focus();
    } catch (error) {
      said.textContent = error.message;
    }
    button.disabled = false;
    button.textContent = label;
  };
  form.addEventListener("input", soon);
  room.addEventListener("click", (event) => {
    const button = event.target.closest("[data-edit]");
    if (!button) return;
    const example = button.closest(".example");
    if (button.dataset.edit === "draft") { propose(button); return; }
    if (button.dataset.edit === "keep-draft") {
      button.closest("p").remove();
      example.classList.remove("draft");
      examples.append(example);
      example.querySelector("textarea").focus();
      soon();
      return;
    }
    const added = { "add-example": () => examples.appendChild(clone("example-template")),
      "use-passage": () => examples.appendChild(clone("example-template")),
      "add-pair": () => example.querySelector(".pairs").appendChild(clone("pair-template")),
      "drop-pair": () => { button.closest(".pair").remove(); return null; },
      "drop-example": () => { example.remove(); return null; } }[button.dataset.edit]();
    if (button.dataset.edit === "use-passage") {
      added.querySelector('[data-field="context"]').value = button.closest(".passage").querySelector("blockquote").textContent;
      added.scrollIntoView({ block: "center" });
      added.querySelector('[data-field="question"]').focus();
    } else if (added) added.querySelector("textarea").focus();
    soon();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = document.getElementById("leaf-save");
    if (button.ariaBusy) return;
    button.ariaBusy = "true";
    problem.textContent = "";
    // What is written while it is saved is not in it.
    const saved = [...examples.children].map((example) => [example, [...example.querySelectorAll(".pair")]]);
    const editsSaved = edits;
    try {
      const told = await post("/leaf/save", read());
      room.dataset.digest = told.digest;
      saved.forEach(([example, pairs], number) => {
        example.dataset.old = number;
        pairs.forEach((pair, place) => { pair.dataset.old = place; });
      });
      document.getElementById("leaf-unsaved")?.remove();
      document.getElementById("leaf-begin")?.remove();
      await check();
      status.textContent = `saved; ${status.textContent}`;
      document.getElementById("leaf-next").hidden = edits !== editsSaved;
    } catch (error) {
      problem.textContent = `Not saved: ${error.message}`;
    }
    button.ariaBusy = null;
  });

  const input = document.getElementById("documents-input");
  const drop = document.getElementById("drop");
  const upload = async (files) => {
    const said = document.getElementById("drop-problem");
    said.replaceChildren();
    for (const file of files) {
      try {
        const content = await new Promise((resolve, reject) => {
          const reader = new FileReader();
          reader.onload = () => resolve(reader.result.split(",")[1] || "");
          reader.onerror = () => reject(reader.error);
          reader.readAsDataURL(file);
        });
        const told = await post("/leaf/documents", { name: file.name, content });
        // The server's own page, everything in it escaped.
        document.getElementById("documents").innerHTML = told.html;
      } catch (error) {
        said.appendChild(document.createElement("span")).textContent = error.message;
      }
    }
    check();
  };
  if (drop) {
    input.addEventListener("change", async () => { await upload([...input.files]); input.value = ""; });
    drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
    drop.addEventListener("dragleave", () => drop.classList.remove("over"));
    drop.addEventListener("drop", (event) => { event.preventDefault(); drop.classList.remove("over"); upload([...event.dataTransfer.files]); });
  }
  check();
}
