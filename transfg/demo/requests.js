// Requests and their ends. Follows page.js in one script. Each request has a number, which the
// server returns with the answer. So a late answer to an older request is never shown in place of
// the answer to the newest one.
const WATCH = 4000; // milliseconds between two questions for the server's health
const PATIENCE = 10000; // milliseconds to answer one of them
const FAILURES = 3; // this many in a row mean that the server is gone; one can be an accident
let runs = 0; // the number of the newest request
let busy = false;
let again = false; // something was chosen while the server was busy

const result = () => document.querySelector(".tf-result");
const outcome = () => result().querySelector("[data-run]");

function chosen(name) {
  return [...form.querySelectorAll(`input[name=${name}]:checked`)].map((input) => input.value);
}

function run() {
  if (!image) return;
  if (busy) {
    again = true;
    return;
  }
  busy = true;
  watch(++runs);
  removeCards();
  root.classList.add("tf-busy");
  result().setAttribute("aria-busy", "true");
  result().dataset.working = words.working;
  const backends = chosen("backends");
  const both = backends.includes("both");
  const all = [...form.querySelectorAll("input[name=backends]")].map((input) => input.value);
  trigger("run", {
    run: runs,
    image: image,
    models: chosen("models"),
    backends: both ? all.filter((name) => name !== "both") : backends,
  });
}

// gradio says nothing if the server is gone; so ask for its health while waiting
async function watch(number) {
  for (let failures = 0; failures < FAILURES; ) {
    await new Promise((resolve) => setTimeout(resolve, WATCH));
    if (!busy || number !== runs) return;
    const there = await fetch("health", {
      cache: "no-store",
      signal: AbortSignal.timeout(PATIENCE),
    }).then((r) => r.ok || r.status === 503, () => false); // 503: too many readers at a time
    failures = there ? 0 : failures + 1;
  }
  if (busy && number === runs) end(words.lost);
}

// the newest request has ended: with an answer, or with a text that says why there is none
function end(failure) {
  const scrolls = busy && window.matchMedia("(max-width: 899px)").matches;
  busy = false;
  root.classList.remove("tf-busy");
  root.classList.toggle("tf-stale", Boolean(failure));
  result().removeAttribute("aria-busy");
  removeCards();
  if (failure) addCard(failure);
  else find("tf-said").textContent = outcome().dataset.said;
  if (again) {
    again = false;
    run();
  } else if (scrolls) {
    result().scrollIntoView({ behavior: "smooth", block: "start" });
  }
}

// there is no request, because the browser has no picture to send; an older answer is not shown
function refuse(text) {
  runs += 1;
  again = false;
  end(text);
}

// gradio has written an answer: it ends the newest request if it has its number. This also holds
// for an answer that comes after the page gave the request up.
function answered() {
  if (!outcome()) return;
  showMap();
  const waits = busy || root.classList.contains("tf-stale");
  if (waits && Number(outcome().dataset.run) === runs) end("");
}
new MutationObserver(answered).observe(document.querySelector(".tf-columns"), {
  childList: true,
  subtree: true,
});

window.transfg = {
  failed() {
    if (busy) end(words.lost);
  },
};

// gradio says in English alone that its queue is full (503), and style.css hides what it says
const plainFetch = window.fetch;
window.fetch = async (...request) => {
  const reply = await plainFetch(...request);
  const address = String(request[0].url ?? request[0]);
  if (reply.status === 503 && address.includes("/queue/join") && busy) end(words.queue_full);
  return reply;
};

function removeCards() {
  for (const card of document.querySelectorAll(".tf-lost")) card.remove();
}

function addCard(text) {
  const card = document.createElement("div");
  card.className = "tf-card tf-error tf-lost";
  card.setAttribute("role", "alert");
  const title = document.createElement("h2");
  title.textContent = words.server_title;
  const said = document.createElement("p");
  said.textContent = text;
  card.append(title, said);
  result().prepend(card);
}
