"use strict";
// The browser of single problems. What is looked at stands in the address, so that it can be linked to.
// Texts of models and questions only ever become text nodes.

const parsed = {};
const data = (name) => (parsed[name] ??= JSON.parse(document.getElementById(name).textContent));
const index = data("index");
const at = (id) => document.getElementById(id);
const state = { task: 0, filter: "all", search: "", doc: null, strategy: 0, branch: null, theme: null };

function make(tag, css, text, ...children) {
  const element = document.createElement(tag);
  if (css) element.className = css;
  if (text !== undefined && text !== null) element.textContent = text;
  element.append(...children);
  return element;
}

function read() {
  const given = new URLSearchParams(location.hash.slice(1));
  const place = (list, name) => Math.max(0, list.indexOf(given.get(name)));
  state.task = place(index.tasks.map((each) => each.task), "task");
  state.strategy = place(index.tasks[state.task].strategies, "strategy");
  state.filter = given.get("filter") ?? "all";
  state.search = given.get("search") ?? "";
  state.doc = given.has("doc") ? Number(given.get("doc")) : null;
  state.branch = given.has("branch") ? Number(given.get("branch")) : null;
  state.theme = given.get("theme");
}

function write() {
  const task = index.tasks[state.task];
  const said = new URLSearchParams({ task: task.task, strategy: task.strategies[state.strategy] });
  if (state.filter !== "all") said.set("filter", state.filter);
  if (state.search) said.set("search", state.search);
  if (state.doc !== null) said.set("doc", state.doc);
  if (state.branch !== null) said.set("branch", state.branch);
  if (state.theme) said.set("theme", state.theme);
  history.replaceState(null, "", "#" + said);
}

const isRight = (grade) => grade !== null && index.outcomes[grade[0]] === "right";

function matches([, question, gold, grades], words) {
  const own = grades[state.strategy];
  if (state.filter === "right" && !isRight(own)) return false;
  if (state.filter === "wrong" && (own === null || isRight(own))) return false;
  if (state.filter === "differs") {
    const known = grades.filter((grade) => grade !== null).map(isRight);
    if (known.every((right) => right === known[0])) return false;
  }
  const text = [question, gold, ...grades.map((grade) => grade?.[1] ?? "")].join(" ").toLowerCase();
  return words.every((word) => text.includes(word));
}

function showList() {
  const { problems, strategies } = index.tasks[state.task];
  const words = state.search.toLowerCase().split(/\s+/).filter(Boolean);
  const found = problems.filter((problem) => matches(problem, words));
  if (!found.some(([id]) => id === state.doc)) state.doc = found.length ? found[0][0] : null;
  at("count").textContent = `${found.length} of ${problems.length}`;
  at("problems").replaceChildren(...found.map((problem) => entry(problem, strategies)));
  const current = mark();
  if (current) at("problems").scrollTop = current.offsetTop - at("problems").clientHeight / 2;
}

function mark() {
  for (const button of at("problems").querySelectorAll("button")) {
    button.setAttribute("aria-current", Number(button.dataset.doc) === state.doc);
  }
  return at("problems").querySelector('[aria-current="true"]');
}

function entry([id, question, , grades], strategies) {
  const marks = grades.map((grade, i) => {
    const mark = make("span", "mark " + (grade === null ? "none" : isRight(grade) ? "right" : ""));
    mark.title = strategies[i];
    return mark;
  });
  const button = make("button", "", null, make("span", "asked", `${id}  ${question}`), make("span", "marks", null, ...marks));
  button.type = "button";
  button.dataset.doc = id;
  return make("li", "", null, button);
}

function showProblem() {
  const { problems, strategies } = index.tasks[state.task];
  const problem = problems.find(([id]) => id === state.doc);
  if (!problem) {
    at("problem").replaceChildren(make("p", "quiet", "No problem fits."));
    return;
  }
  const [, question, gold, grades] = problem;
  const tabs = strategies.map((name, i) => tab(name, grades[i]?.[1] ?? "none", isRight(grades[i]), i === state.strategy, { strategy: i }));
  at("problem").replaceChildren(
    make("p", "question", question),
    make("p", "quiet", `gold answer: ${gold}`),
    make("div", "tabs", null, ...tabs),
    ...solution(data(`solutions-${state.task}-${state.strategy}`)[state.doc]),
  );
}

function tab(name, answer, right, pressed, goes) {
  const button = make("button", right ? "right" : "", `${right ? "✓" : "✗"} ${name}: ${answer}`);
  button.type = "button";
  button.setAttribute("aria-pressed", pressed);
  Object.assign(button.dataset, goes);
  return button;
}

function solution(answers) {
  if (!answers?.length) return [make("p", "quiet", "This strategy has no answer to this problem.")];
  const counted = Math.max(0, answers.findIndex((answer) => answer.counts));
  const chosen = Math.min(state.branch ?? counted, answers.length - 1);
  const answer = answers[chosen];
  const outcome = index.outcomes[answer.outcome];
  const branches = answers.map((each, i) => {
    const score = each.score === null ? "" : ` (${each.score.toFixed(2)})`;
    return tab(`${i + 1}${i === counted ? " (counts)" : ""}`, (each.extracted ?? "none") + score, index.outcomes[each.outcome] === "right", i === chosen, { branch: i });
  });
  const seconds = (answer.ms / 1000).toFixed(1);
  const tera = (answer.flops / 1e12).toFixed(2);
  return [
    ...(answers.length > 1 ? [make("div", "tabs", null, ...branches)] : []),
    make("p", "quiet", null, make("span", "outcome " + outcome, outcome), ` · ended by ${answer.ended} · ${seconds} s in models · ${tera} TFLOPs`),
    ...(answer.steps ?? []).map(step),
    ...(answer.steps ? [] : [make("p", "quiet", "Left out to keep this page small; the sample file has it.")]),
  ];
}

function step([text, author, reward, tokens, lost], i) {
  const name = author === "t" ? "target" : "draft";
  const kept = by(name, `${i + 1} ${name}`, text, reward, tokens);
  const parts = lost ? [kept, by("lost", "draft, rejected", lost[0], lost[1], lost[2])] : [kept];
  return make("div", lost ? "step rewritten" : "step", null, ...parts);
}

function by(css, author, text, reward, tokens) {
  const head = make("div", "head", null, make("span", "author", author));
  if (reward !== null) {
    const fill = make("i");
    fill.style.width = `${100 * Math.min(1, Math.max(0, reward))}%`;
    const bar = make("span", "reward author", null, fill);
    head.append(bar, make("span", "", reward.toFixed(3)));
  }
  head.append(make("span", "", `${tokens} tokens`));
  return make("div", "by " + css, null, head, make("div", "text-of", text.trimEnd()));
}

function show() {
  if (state.theme) document.documentElement.dataset.theme = state.theme;
  at("filter").value = state.filter;
  if (at("search").value !== state.search) at("search").value = state.search;
  at("task").value = state.task;
  showList();
  showProblem();
  write();
}

function go(change) {
  Object.assign(state, change);
  show();
}

at("task").replaceChildren(...index.tasks.map((each, i) => Object.assign(make("option", "", each.task), { value: i })));
at("task").hidden = index.tasks.length < 2;
at("task").addEventListener("change", (event) => go({ task: Number(event.target.value), strategy: 0, doc: null, branch: null }));
at("filter").addEventListener("change", (event) => go({ filter: event.target.value, branch: null }));
at("search").addEventListener("input", (event) => go({ search: event.target.value, branch: null }));
at("problems").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  Object.assign(state, { doc: Number(button.dataset.doc), branch: null });
  mark();
  showProblem();
  write();
  if (matchMedia("(max-width: 760px)").matches) at("problem").scrollIntoView({ behavior: "smooth" });
});
at("problem").addEventListener("click", (event) => {
  const goes = event.target.closest("button")?.dataset;
  if (goes?.strategy) go({ strategy: Number(goes.strategy), branch: null });
  else if (goes?.branch) go({ branch: Number(goes.branch) });
});
at("theme").addEventListener("click", () => {
  const dark = state.theme ? state.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  go({ theme: dark ? "light" : "dark" });
});
addEventListener("hashchange", () => { read(); show(); });
read();
show();
