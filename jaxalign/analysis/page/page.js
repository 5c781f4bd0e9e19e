"use strict";
// Tables that sort, filters, and the responses. Every text is set with textContent, so none of it is ever read as HTML.
(() => {
  const all = (query, where = document) => [...where.querySelectorAll(query)];
  const byId = (name) => document.getElementById(name);
  const make = (name, text, style) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (style) made.className = style;
    return made;
  };

  const compare = (a, b) => {
    // A number, or a figure with its interval, has no element in its cell; a text has one.
    if (!a.firstElementChild && !b.firstElementChild) return parseFloat(a.textContent) - parseFloat(b.textContent);
    return a.textContent.localeCompare(b.textContent, "en");
  };
  const isEmpty = (cell) => cell.textContent === "–" || cell.textContent === "";

  const sort = (head) => {
    const place = [...head.parentNode.children].indexOf(head);
    const body = head.closest("table").tBodies[0];
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentNode.children) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...body.rows].map((row) => [row.cells[place], row]);
    rows.sort(([a], [b]) => isEmpty(a) - isEmpty(b) || (down ? compare(b, a) : compare(a, b)));
    body.append(...rows.map(([, row]) => row));
  };
  for (const head of all("th")) {
    const button = head.querySelector("button");
    button.addEventListener("click", () => sort(head));
    button.addEventListener("focus", () => {
      // The first column stays in place: what is focused must not lie under it.
      const first = head.parentNode.firstElementChild;
      const under = first.getBoundingClientRect().right - head.getBoundingClientRect().left;
      if (head !== first && under > 0) head.closest(".scroll").scrollLeft -= under;
    });
  }

  const filters = byId("filters");
  const chosen = () => Object.fromEntries(all("[data-filter]", filters).map((one) => [one.dataset.filter, one.value]));
  const fits = (words, value) => !value || words === undefined || words.split(" ").includes(value);

  const filter = () => {
    const wanted = Object.entries(chosen());
    let hidden = 0;
    for (const row of all("tbody tr")) {
      row.hidden = !wanted.every(([name, value]) => fits(row.dataset[name], value));
      hidden += row.hidden;
    }
    byId("filtered").textContent = hidden ? `${hidden} rows of tables are hidden` : "";
  };

  const sets = JSON.parse(byId("texts").textContent);
  const STEP = 10;
  let first = 0;

  const fill = (select, pairs) => {
    const before = select.value;
    select.replaceChildren(...pairs.map(([value, text]) => {
      const option = make("option", text);
      option.value = value;
      return option;
    }));
    if (pairs.some(([value]) => String(value) === before)) select.value = before;
  };

  const answer = (set, model, number) => {
    const part = make("div");
    part.append(make("h4", model.title));
    const found = model.responses[number];
    if (!found) {
      part.append(make("p", "no response", "note"));
      return part;
    }
    const [text, said, hidden, more] = found;
    part.append(make("p", said, "note"));
    const shown = make("p", text, "answer");
    shown.dir = "auto";
    if (more) shown.append(make("span", ` … ${more.toLocaleString("en")} more characters`, "note"));
    if (!hidden) {
      part.append(shown);
      return part;
    }
    part.className = hidden === 2 ? "harmful unsure" : "harmful";
    veil(part, shown, `${model.title}, ${set.prompts[number].id}`);
    return part;
  };

  // Put a button in the place of a text, which is in the page only once a reader asks for it.
  const veil = (part, shown, about) => {
    const ask = make("button");
    ask.type = "button";
    const toggle = (open) => {
      ask.textContent = open ? "Hide text" : "Show text";
      ask.setAttribute("aria-label", `${ask.textContent}: ${about}`);  // there are many such buttons
      ask.setAttribute("aria-expanded", String(open));
      if (open) part.append(shown); else shown.remove();
    };
    ask.addEventListener("click", () => toggle(!shown.isConnected));
    part.append(ask);
    toggle(byId("harmful").checked);
  };

  const question = (prompt) => {
    const part = make("div", undefined, "asked");
    const text = make("p", prompt.text, "prompt");
    text.dir = "auto";
    if (prompt.hidden) veil(part, text, `prompt ${prompt.id}`); else part.append(text);
    return part;
  };

  const draw = () => {
    const set = sets[Number(byId("set").value)];
    byId("why").textContent = set.note;
    const wanted = chosen();
    const models = set.models.map((model, number) => [number, model]).filter(([, model]) =>
      !model.base && fits(model.value || undefined, wanted.value) && fits(model.mitigation, wanted.mitigation));
    const bases = set.models.map((model, number) => [number, model]).filter(([, model]) =>
      model.base && fits(model.mitigation, wanted.mitigation));
    fill(byId("model"), (models.length ? models : bases).map(([number, model]) => [number, model.title]));
    const model = set.models[Number(byId("model").value)];
    const prompts = set.prompts.map((prompt, number) => [prompt, number])
      .filter(([prompt]) => fits(prompt.category, wanted.category));
    first = Math.max(0, Math.min(first, STEP * Math.floor((prompts.length - 1) / STEP)));
    const cards = byId("cards");
    cards.replaceChildren();
    for (const button of all(".step")) {
      const next = first + STEP * Number(button.dataset.step);
      button.disabled = next < 0 || next >= prompts.length;
    }
    const end = Math.min(first + STEP, prompts.length);
    byId("place").textContent = model && prompts.length
      ? `Prompts ${first + 1} to ${end} of ${prompts.length}` : "Nothing fits these filters";
    if (!model || byId("model").value === "") return;
    const base = set.models.find((one) => one.base && one.mitigation === model.mitigation);
    for (const [prompt, number] of prompts.slice(first, end)) {
      const card = make("article", undefined, "card");
      card.append(make("p", `${prompt.title} · ${prompt.id}`, "note"));
      const pair = make("div", undefined, "pair");
      if (base && base !== model) pair.append(answer(set, base, number));
      pair.append(answer(set, model, number));
      card.append(question(prompt), pair);
      cards.append(card);
    }
  };

  const again = (restart) => {
    if (restart) first = 0;
    filter();
    if (sets.length) draw();
  };
  filters.addEventListener("change", () => again(true));
  filters.addEventListener("reset", () => setTimeout(() => again(true)));
  filters.addEventListener("submit", (event) => event.preventDefault());
  if (sets.length) {
    fill(byId("set"), sets.map((set, number) => [number, set.title]));
    byId("chosen").addEventListener("change", (event) => again(event.target.type !== "checkbox"));
    byId("chosen").addEventListener("submit", (event) => event.preventDefault());
    for (const button of all(".step")) {
      button.addEventListener("click", () => {
        first += STEP * Number(button.dataset.step);
        draw();
        if (button.disabled) all(".step:enabled")[0]?.focus();  // a disabled button would lose the keyboard's place
        byId("responses").scrollIntoView();
      });
    }
  }
  again(true);
})();
