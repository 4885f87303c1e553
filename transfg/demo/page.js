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
let picks = 0; // pictures that were chosen so far
let stream = null; // of the camera
let asks = 0; // the camera was asked for or closed so often

function preview(address) {
  const shown = find("tf-preview");
  shown.onerror = () => (shown.hidden = true); // a kind that this browser does not show
  shown.onload = () => (shown.hidden = false);
  if (shown.src.startsWith("blob:")) URL.revokeObjectURL(shown.src);
  shown.src = address;
}

function take(file) {
  closeCamera();
  mark(null);
  if (file.size > words.bytes) {
    image = "too-large";
    find("tf-preview").hidden = true;
    run();
    return;
  }
  image = "";
  preview(URL.createObjectURL(file));
  const reader = new FileReader();
  const pick = ++picks;
  reader.onload = () => {
    if (pick !== picks) return; // another picture was chosen in the meantime
    image = reader.result;
    // a browser writes "data:" alone for an empty file
    if (!image.includes(",")) image = "data:application/octet-stream;base64,";
    run();
  };
  reader.onerror = () => refuse(words.no_file); // such as a file that is gone by now
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
    closeCamera();
    mark(button);
    picks += 1;
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
  asks += 1;
  find("tf-live").hidden = true;
  find("tf-camera").hidden = false;
}
find("tf-camera").addEventListener("click", async () => {
  closeCamera(); // a second click while the browser still asks the reader
  const ask = asks;
  let opened;
  try {
    opened = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch {
    find("tf-camera").disabled = true;
    find("tf-camera").textContent = words.no_camera;
    return;
  }
  if (ask !== asks) {
    for (const track of opened.getTracks()) track.stop(); // it was closed in the meantime
    return;
  }
  stream = opened;
  const video = find("tf-live").querySelector("video");
  video.srcObject = stream;
  find("tf-live").hidden = false;
  find("tf-camera").hidden = true;
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
  // there is no blob if the camera gave no picture yet
  canvas.toBlob((blob) => (blob ? take(blob) : refuse(words.no_file)), "image/jpeg", 0.92);
});
