"use strict";

// Players: a cursor moves over waveform and spectrogram while the audio plays, and a range input over both seeks.

function makePlayer(track) {
  const audio = track.querySelector("audio");
  const button = track.querySelector(".play");
  const range = track.querySelector("input");
  const time = track.querySelector(".time");
  const plot = track.querySelector(".plot");
  const seconds = Number(track.dataset.seconds);
  const name = audio.getAttribute("aria-label");

  function show() {
    const at = Math.min(audio.currentTime, seconds);
    track.querySelector(".cursor").style.setProperty("--at", at / seconds);
    range.value = at;
    range.setAttribute("aria-valuetext", `${at.toFixed(1)} of ${seconds.toFixed(1)} seconds`);
    time.textContent = `${at.toFixed(1)} / ${seconds.toFixed(1)} s`;
  }

  function follow() {
    show();
    // Only the picture of a score is wider than its frame.
    plot.scrollLeft = (plot.scrollWidth * audio.currentTime) / seconds - plot.clientWidth / 2;
    if (!audio.paused) requestAnimationFrame(follow);
  }

  function playing(now) {
    track.classList.toggle("playing", now);
    button.setAttribute("aria-label", `${now ? "Pause" : "Play"} ${name}`);
  }

  // A server that cannot send a part of a file would not let the audio seek, so the file is taken whole, once it is
  // wanted. From the file system it cannot be fetched, and need not be.
  let fetched;
  function load() {
    if (location.protocol === "file:") return undefined;
    fetched ??= fetch(audio.src)
      .then((response) => response.blob())
      .then((blob) => { audio.src = URL.createObjectURL(blob); });
    return fetched;
  }

  async function toggle() {
    if (!audio.paused) return audio.pause();
    await load();
    for (const other of document.querySelectorAll("audio")) if (other !== audio) other.pause();
    return audio.play();
  }

  audio.addEventListener("play", () => { playing(true); follow(); });
  audio.addEventListener("pause", () => { playing(false); show(); });
  audio.addEventListener("seeked", show);
  button.addEventListener("click", toggle);
  range.addEventListener("input", async () => {
    const to = Number(range.value);
    await load();
    audio.currentTime = to;
    show();
  });
  range.addEventListener("keydown", (event) => {
    if (event.key !== " ") return;
    event.preventDefault();
    toggle();
  });
  audio.controls = false;
  audio.hidden = true;
  button.hidden = false;
  range.hidden = false;
  show();
}

// Curves: losses above, the learning rate below, with one cursor and one zoom.

const DASHES = [[], [6, 4], [2, 3]];

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function makeCharts(box, columns) {
  const chart = box.querySelector(".chart");
  const epochs = columns.epoch;
  const names = Object.keys(columns).filter((name) => name !== "epoch");
  const panels = [
    [names.filter((name) => name.includes("loss")), box.dataset.unit, 300],
    [names.filter((name) => !name.includes("loss")), "rate", 160],
  ];
  const scale = { min: epochs[0], max: epochs[epochs.length - 1] };
  let plots = [];

  function zoom(min, max) {
    for (const plot of plots) plot.setScale("x", { min, max });
  }

  function draw() {
    for (const plot of plots) plot.destroy();
    const axis = { stroke: colour("muted"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line") } };
    const colours = [colour("accent"), colour("second"), colour("good")];
    plots = panels.map(([shown, unit, height]) => new uPlot({
      width: chart.clientWidth,
      height,
      cursor: { sync: { key: box.dataset.curves }, drag: { x: true, y: false } },
      scales: { x: { time: false } },
      axes: [
        { ...axis, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000] },
        { ...axis, label: unit, size: 60, values: (_, ticks) => ticks.map((tick) => Number(tick.toPrecision(6)).toString()) },
      ],
      series: [
        { label: "epoch" },
        ...shown.map((name, i) => ({
          label: name,
          stroke: colours[i % colours.length],
          dash: DASHES[i % DASHES.length],
          width: 2,
          paths: unit === "rate" ? uPlot.paths.stepped({ align: -1 }) : undefined,
          points: { show: epochs.length < 60, size: 6 },
          value: (_, value) => value?.toPrecision(4) ?? "",
        })),
      ],
    }, [epochs, ...shown.map((name) => columns[name])], chart));
  }

  for (const button of box.querySelectorAll("[data-zoom]")) {
    button.addEventListener("click", () => {
      const { min, max } = plots[0].scales.x;
      const centre = (min + max) / 2;
      const half = ((max - min) / 2) * { in: 0.5, out: 2, all: Infinity }[button.dataset.zoom];
      zoom(Math.max(scale.min, centre - half), Math.min(scale.max, centre + half));
    });
  }
  draw();
  let width = chart.clientWidth;
  new ResizeObserver(() => {
    if (chart.clientWidth === width) return;
    width = chart.clientWidth;
    for (const plot of plots) plot.setSize({ width, height: plot.height });
  }).observe(chart);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}

// run.js has what depends on git: the commit, and its metrics to compare with. The page does without it.

function rounded(value, digits) {
  return String(Number(value.toPrecision(digits))).replace("-", "−");
}

function signed(value) {
  return `${value > 0 ? "+" : ""}${rounded(value, 3)}`;
}

function compare(run) {
  const changes = run.changed ? `, with ${run.changed} file${run.changed > 1 ? "s" : ""} changed since` : "";
  const commit = document.querySelector("#commit");
  commit.textContent = `Made at git commit ${run.commit}${changes}.`;
  commit.hidden = false;
  if (!Object.keys(run.metrics).length) return;
  const compared = document.querySelector("#compared");
  compared.textContent = `Compared with the metrics of commit ${run.commit}, the last one when this page was made.`;
  compared.hidden = false;
  for (const cell of document.querySelectorAll("#metrics-table .before")) cell.hidden = false;
  for (const row of document.querySelectorAll("#metrics-table tr[data-name]")) {
    const old = run.metrics[row.dataset.file]?.[row.dataset.name];
    if (typeof old !== "number") continue;
    const change = Number(row.dataset.value) - old;
    const cell = row.querySelector(".change");
    row.querySelector(".old").textContent = rounded(old, 4);
    cell.textContent = signed(change);
    if (change && "better" in row.dataset) {
      const verdict = change < 0 === (row.dataset.better === "lower") ? "better" : "worse";
      cell.classList.add(verdict);
      cell.textContent += ` ${verdict}`;
    }
  }
}

document.documentElement.classList.add("js");
for (const track of document.querySelectorAll(".track")) makePlayer(track);
const curves = JSON.parse(document.querySelector("#curves-data").textContent);
for (const box of document.querySelectorAll(".curves")) makeCharts(box, curves[box.dataset.curves]);
if (window.melnetRun?.commit) compare(window.melnetRun);
