"use strict";
// Everything the page shows beyond its text and plots: the torsion maps on choice, and the 3-D viewer.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const report = (window.openmmLatent = { viewer: null, models: {}, frame: 0 });

function showMap() {
  const chosen = data.maps[Number(byId("residue").value)];
  const [across, up] = chosen.axes.split(", ");
  for (const side of ["reference", "sample"]) {
    byId("map-" + side).setAttribute("href", chosen[side]);
    byId("across-" + side).textContent = across + " / degrees";
    byId("up-" + side).textContent = up + " / degrees";
  }
}

if (data.maps.length) {
  byId("residue").addEventListener("input", showMap);
  showMap();
}

// (n_frames, n_atoms, 3) in Å, from base64 of little-endian 16-bit integers
function unpack(packed, nAtoms) {
  const bytes = Uint8Array.from(atob(packed.data), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const frames = [];
  for (let frame = 0, at = 0; frame < packed.n_frames; frame++) {
    const atoms = [];
    for (let atom = 0; atom < nAtoms; atom++, at += 6) {
      atoms.push([0, 2, 4].map((k) => view.getInt16(at + k, true) / data.viewer.per_angstrom));
    }
    frames.push(atoms);
  }
  return frames;
}

function colourOf(name) {
  return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
}

function restyle() {
  const choice = document.querySelector("input[name=shown]:checked").value;
  for (const [name, model] of Object.entries(report.models)) {
    const isShown = choice === "both" || choice === name;
    const carbons = { colorscheme: { prop: "elem", map: { ...$3Dmol.elementColors.rasmol, C: colourOf(name) } } };
    const ribbon = { cartoon: { color: colourOf(name), thickness: 0.4 } };
    model.setStyle({}, data.viewer.is_ribbon ? ribbon : { stick: { radius: 0.14, ...carbons } });
    if (data.viewer.is_ribbon) {
      // what is no protein has no ribbon
      model.setStyle({ not: { atom: ["N", "CA", "C", "O"] } , hetflag: true }, { stick: { radius: 0.14, ...carbons } });
    }
    isShown ? model.show() : model.hide();
  }
  report.viewer.setBackgroundColor(colourOf("paper"), 1);
  report.viewer.render();
}

async function showFrame(number) {
  report.frame = number;
  byId("frame").value = number;
  byId("stage").dataset.frame = number;
  byId("frame-words").textContent = "frame " + (number + 1);
  for (const model of Object.values(report.models)) {
    await model.setFrame(Math.min(number, model.getNumFrames() - 1), report.viewer);
  }
  restyle();
}

let timer = null;
function play(isOn) {
  clearInterval(timer);
  timer = isOn ? setInterval(() => showFrame((report.frame + 1) % (Number(byId("frame").max) + 1)), 150) : null;
  byId("play").textContent = isOn ? "Pause" : "Play";
  byId("play").setAttribute("aria-pressed", String(isOn));
}

function startViewer() {
  report.viewer = $3Dmol.createViewer(byId("stage"), { antialias: true });
  let mostFrames = 1;
  for (const [name, packed] of Object.entries(data.viewer.frames)) {
    const model = report.viewer.addModel(data.viewer.pdb, "pdb");
    model.setCoordinates(unpack(packed, data.viewer.n_atoms), "array");
    report.models[name] = model;
    mostFrames = Math.max(mostFrames, packed.n_frames);
  }
  byId("frame").max = mostFrames - 1;
  byId("frame").addEventListener("input", (event) => { play(false); showFrame(Number(event.target.value)); });
  byId("play").addEventListener("click", () => play(timer === null));
  document.querySelectorAll("input[name=shown]").forEach((one) => one.addEventListener("change", restyle));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", restyle);
  return showFrame(0).then(() => { report.viewer.zoomTo(); report.viewer.render(); byId("stage").dataset.ready = "yes"; });
}

try {
  startViewer();
} catch (error) {
  byId("stage").textContent = "This browser draws no 3-D (WebGL is missing); everything else is on the page.";
}
