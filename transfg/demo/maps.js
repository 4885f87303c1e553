// The outcome: which map, and how strong its colours are. It follows page.js in one script.
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
  for (const note of document.querySelectorAll(".tf-pictures [data-wanted]")) {
    note.hidden = note.dataset.wanted !== map;
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
