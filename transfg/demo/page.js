// The picker of pictures. gradio runs this once when the component is there:
// `element` is the component, and `trigger` sends an event to the server.
const form = element.querySelector("form");
const words = JSON.parse(form.dataset.words);
const find = (name) => form.querySelector("." + name);
const root = document.documentElement;
root.lang = words.language === "zh" ? "zh-CN" : "en";
// Chromium leaves boxes in place of letters that were drawn before their font came; draw them again
document.fonts.addEventListener("loadingdone", () => root.classList.add("tf-fonts"));
let image = ""; // the picture as text, or the name of an example
let stream = null; // of the camera
let busy = false;
let runs = 0;
let again = false; // something was chosen while the server was busy

const result = () => document.querySelector(".tf-result");

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
  for (const card of document.querySelectorAll(".tf-lost")) card.remove();
  root.classList.add("tf-busy");
  result().setAttribute("aria-busy", "true");
  result().dataset.working = words.working;
  const backends = chosen("backends");
  const both = backends.includes("both");
  const all = [...form.querySelectorAll("input[name=backends]")].map((input) => input.value);
  trigger("run", {
    image: image,
    models: chosen("models"),
    backends: both ? all.filter((name) => name !== "both") : backends,
  });
}

// gradio says nothing if the server is gone; so ask for its health while waiting
const WATCH = 4000; // milliseconds
async function watch(number) {
  await new Promise((resolve) => setTimeout(resolve, WATCH));
  if (!busy || number !== runs) return;
  const there = await fetch("health", { cache: "no-store" }).then((r) => r.ok, () => false);
  if (!busy || number !== runs) return;
  if (there) watch(number);
  else window.transfg.done(false);
}

window.transfg = {
  done(answered) {
    if (!busy) return;
    busy = false;
    root.classList.remove("tf-busy");
    root.classList.toggle("tf-stale", !answered);
    result().removeAttribute("aria-busy");
    if (!answered) lost();
    if (again) {
      again = false;
      run();
      return;
    }
    showMap();
    if (window.matchMedia("(max-width: 899px)").matches) {
      result().scrollIntoView({ behavior: "smooth", block: "start" });
    }
  },
};

function lost() {
  const card = document.createElement("div");
  card.className = "tf-card tf-error tf-lost";
  card.setAttribute("role", "alert");
  const title = document.createElement("h2");
  title.textContent = words.server_title;
  const said = document.createElement("p");
  said.textContent = words.lost;
  card.append(title, said);
  result().prepend(card);
}

function preview(address) {
  const shown = find("tf-preview");
  shown.onerror = () => (shown.hidden = true); // a kind that this browser does not show
  shown.onload = () => (shown.hidden = false);
  if (shown.src.startsWith("blob:")) URL.revokeObjectURL(shown.src);
  shown.src = address;
}

function take(file) {
  mark(null);
  if (file.size > words.bytes) {
    image = "too-large";
    find("tf-preview").hidden = true;
    run();
    return;
  }
  preview(URL.createObjectURL(file));
  const reader = new FileReader();
  reader.onload = () => {
    image = reader.result;
    // a browser writes "data:" alone for an empty file
    if (!image.includes(",")) image = "data:application/octet-stream;base64,";
    run();
  };
  reader.readAsDataURL(file);
}

function mark(button) {
  for (const other of form.querySelectorAll(".tf-example")) {
    other.classList.toggle("tf-picked", other === button);
  }
}

// --- choosing a file, dropping it, pasting it
find("tf-file").addEventListener("change", (event) => {
  if (event.target.files.length) take(event.target.files[0]);
  event.target.value = ""; // so that the same file can be chosen again
});
const drop = find("tf-drop");
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("tf-over", name === "dragenter" || name === "dragover");
    if (name === "drop" && event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
  });
}
document.addEventListener("paste", (event) => {
  const files = event.clipboardData ? [...event.clipboardData.files] : [];
  if (files.length) take(files[0]);
});

// --- examples, models, frameworks
form.addEventListener("submit", (event) => event.preventDefault());
for (const button of form.querySelectorAll(".tf-example")) {
  button.addEventListener("click", () => {
    mark(button);
    image = "example:" + button.dataset.number;
    preview(button.querySelector("img").src);
    run();
  });
}
form.addEventListener("change", (event) => {
  const input = event.target;
  if (input.name === "models" && !chosen("models").length) input.checked = true; // at least one
  if (input.name === "models" || input.name === "backends") run();
});

// --- the camera
function closeCamera() {
  if (stream) for (const track of stream.getTracks()) track.stop();
  stream = null;
  find("tf-live").hidden = true;
}
find("tf-camera").addEventListener("click", async () => {
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch {
    find("tf-camera").disabled = true;
    find("tf-camera").textContent = words.no_camera;
    return;
  }
  const video = find("tf-live").querySelector("video");
  video.srcObject = stream;
  find("tf-live").hidden = false;
  await video.play();
});
find("tf-stop").addEventListener("click", closeCamera);
find("tf-shoot").addEventListener("click", () => {
  const video = find("tf-live").querySelector("video");
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  closeCamera();
  canvas.toBlob((blob) => take(blob), "image/jpeg", 0.92);
});

// --- the outcome: which map, and how strong its colours are
let map = "";
function showMap() {
  const inputs = [...document.querySelectorAll("input[name=tf-map]")];
  if (!inputs.length) return;
  const kept = inputs.find((input) => input.value === map);
  if (kept) kept.checked = true;
  map = inputs.find((input) => input.checked).value;
  for (const layer of document.querySelectorAll(".tf-pictures [data-map]")) {
    layer.hidden = layer.dataset.map !== map;
  }
  // a model without this map shows its first one
  for (const figure of document.querySelectorAll(".tf-pictures figure")) {
    const layers = [...figure.querySelectorAll("[data-map]")];
    if (layers.length && layers.every((layer) => layer.hidden)) {
      for (const layer of layers) layer.hidden = layer.dataset.map !== layers[0].dataset.map;
    }
  }
  const slider = document.querySelector(".tf-opacity");
  const strength = getComputedStyle(root).getPropertyValue("--tf-strength");
  if (strength) slider.value = Math.round(100 * parseFloat(strength));
}
document.addEventListener("input", (event) => {
  if (event.target.matches(".tf-opacity")) {
    root.style.setProperty("--tf-strength", event.target.value / 100);
  }
  if (event.target.matches("input[name=tf-map]")) {
    map = event.target.value;
    showMap();
  }
});
