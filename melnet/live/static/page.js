// The live page: one click opens a connection, which sings until it is closed.

import { LastMinute, Recording, wavFile } from "./sound.js";
import { Spectrogram } from "./spectrogram.js";

const AHEAD_SECONDS = 2; // asked for until the player says what it wants
const QUIETEST_DB = -60;
const LEVEL_FALL = 1.2; // of the whole meter, in a second
const LONGEST_RECORDING = 60; // seconds

const find = (id) => document.getElementById(id);
const controls = Object.fromEntries(
  ["play", "keep", "temperature", "components", "singer", "seed", "another", "file", "record", "transpose", "sing"].map((id) => [id, find(id)]),
);
const model = await (await fetch("model")).json();
const spectrogram = new Spectrogram(find("mel"), model);
const minute = new LastMinute(model.sampleRate);
let context = null; // of audio; made at the first click, without which browsers keep it silent
let session = null; // the connection that sings now
let recording = null;

// One connection, and the player of what it brings.
class Session {
  report = { played: 0, waiting: 0, ahead: AHEAD_SECONDS * model.sampleRate, running: false, dry: 0, longestGap: 0, peak: 0 };
  reported = 0; // when
  early = []; // chunks that came before the player was ready
  received = 0; // samples
  clicked = performance.now();

  constructor() {
    const address = new URL("listen", location.href);
    address.protocol = address.protocol.replace("http", "ws");
    this.socket = new WebSocket(address);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => this.send({ ...song(), ...this.wish() });
    this.socket.onmessage = ({ data }) => (typeof data === "string" ? stop(JSON.parse(data).error) : this.take(data));
    this.socket.onclose = () => session === this && stop("The connection to the server has ended. Is it still running?");
    this.startPlayer();
  }

  async startPlayer() {
    if (!context) {
      context = new AudioContext({ sampleRate: model.sampleRate, latencyHint: "interactive" });
      context.ready = context.audioWorklet.addModule("worklets.js");
    }
    context.resume();
    await context.ready;
    if (session !== this) return;
    this.player = new AudioWorkletNode(context, "player", { numberOfInputs: 0, outputChannelCount: [1] });
    this.player.port.onmessage = ({ data }) => this.listen(data);
    this.player.connect(context.destination);
    this.early.forEach((chunk) => this.player.port.postMessage(chunk));
  }

  // A chunk: the numbers of samples and frames, then both as 32-bit floats.
  take(bytes) {
    const [samples] = new Uint32Array(bytes, 0, 1);
    const chunk = new Float32Array(bytes, 8, samples);
    spectrogram.push(new Float32Array(bytes, 8 + 4 * samples));
    minute.push(chunk);
    this.received += samples;
    if (this.player) this.player.port.postMessage(chunk);
    else this.early.push(chunk);
  }

  listen(report) {
    if (session !== this) return;
    if (report.played && !this.report.played) {
      show("first", (performance.now() - this.clicked) / 1000, (seconds) => `${seconds.toFixed(1)} s after the click`);
      controls.keep.disabled = false;
    }
    if (report.running !== this.report.running) say(report.running ? "Singing" : "Waiting for the voice …");
    this.report = report;
    this.reported = performance.now();
    this.send(this.wish());
    level = Math.max(level, loudness(report.peak));
  }

  wish() {
    const components = Number(controls.components.value);
    return {
      temperature: Number(controls.temperature.value),
      top_components: components < model.components ? components : null,
      until: Math.round(this.report.played + this.report.ahead),
    };
  }

  send(message) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  // The sample that is heard now: reports are few.
  get heard() {
    const since = this.report.running ? ((performance.now() - this.reported) / 1000) * model.sampleRate : 0;
    return this.report.played + Math.min(since, this.report.waiting, 0.1 * model.sampleRate);
  }

  end() {
    this.socket.onclose = null;
    this.socket.close();
    this.player?.port.postMessage("end");
    this.player?.disconnect();
    minute.drop(this.received - this.report.played);
  }
}

function song() {
  return { seed: Number(controls.seed.value), singer: controls.singer.value || null, prime: prime.given, score: score.given };
}

function play() {
  if (!find("settings").reportValidity()) return;
  session?.end();
  spectrogram.clear();
  complain("problem", "");
  document.body.classList.add("playing");
  controls.play.setAttribute("aria-label", "Stop");
  say("Waiting for the voice …");
  session = new Session();
}

function stop(problem = "") {
  const ended = session;
  session = null;
  ended?.end();
  context?.suspend();
  document.body.classList.remove("playing");
  controls.play.setAttribute("aria-label", "Play");
  say("Stopped");
  complain("problem", problem);
}

// Another song begins at once if one is sung.
function restart() {
  if (session) play();
}

function say(text) {
  find("status").textContent = text;
}

function complain(id, text) {
  find(id).textContent = text;
  find(id).hidden = !text;
}

function show(id, value, text) {
  find(id).value = value;
  find(id).textContent = text(value);
}

// Level and spectrogram

let level = 0; // from 0 to 1
let drawn = performance.now();

function loudness(peak) {
  return Math.min(1, Math.max(0, 1 - (20 * Math.log10(Math.max(peak, 1e-6))) / QUIETEST_DB));
}

function draw(time) {
  find("level").style.setProperty("--level", level);
  level = Math.max(0, level - (LEVEL_FALL * Math.max(0, time - drawn)) / 1000);
  drawn = time;
  if (session) spectrogram.draw(session.heard);
  requestAnimationFrame(draw);
}

function tell() {
  const decibels = Math.round(QUIETEST_DB * (1 - level));
  find("level").setAttribute("aria-valuenow", decibels);
  find("level").setAttribute("aria-valuetext", level ? `${decibels} dB`.replace("-", "−") : "silence");
  if (!session) return;
  show("heard", session.report.played / model.sampleRate, (seconds) => `${Math.floor(seconds)} s`);
  show("ahead", session.report.waiting / model.sampleRate, (seconds) => `${seconds.toFixed(1)} s`);
  show("dry", session.report.longestGap / model.sampleRate, (seconds) =>
    session.report.dry ? `${session.report.dry} ×, at most ${seconds.toFixed(1)} s` : "never",
  );
}

// A recording to continue, and a score to sing

class Upload {
  given = null; // the name that the server gave it
  sent = 0; // uploads so far: only the last one counts

  // The elements that tell of it have ids with a prefix; buttons, the last of which forgets it, are shown while it is there.
  constructor(kind, prefix, buttons, describe) {
    Object.assign(this, { kind, prefix, describe, buttons: buttons.map(find), file: find(`${prefix}file`) });
    this.buttons.at(-1).onclick = () => {
      this.file.value = "";
      this.forget();
    };
  }

  say(text) {
    find(`${this.prefix}upload`).textContent = text;
  }

  refuse(problem) {
    complain(`${this.prefix}refused`, problem);
  }

  take(given, text) {
    this.given = given;
    for (const button of this.buttons) button.hidden = !given;
    this.say(text);
    restart();
  }

  forget() {
    this.sent += 1;
    if (this.given) this.take(null, "");
    else this.say("");
  }

  async send(blob, name, query = {}) {
    const number = (this.sent += 1);
    this.refuse("");
    this.say(`Listening to ${name} …`);
    try {
      if (blob.size > model.upload.bytes) throw new Error(`larger than ${model.upload.bytes / 2 ** 20} MB; upload its end`);
      const response = await fetch(`${this.kind}?${new URLSearchParams(query)}`, { method: "POST", body: blob });
      const answer = await response.json();
      if (number !== this.sent) return;
      if (!response.ok) throw new Error(answer.error);
      this.take(answer[this.kind], this.describe(answer.seconds.toFixed(1), name) + (answer.notice ? ` Warning: ${answer.notice}.` : ""));
    } catch (error) {
      if (number !== this.sent) return;
      this.forget();
      this.refuse(`${name}: ${error.message}`);
    }
  }
}

const prime = new Upload("prime", "", ["forget"], (seconds, name) => `Continues the last ${seconds} s of ${name}.`);
const score = new Upload("score", "score-", ["sing", "score-forget"], (seconds, name) => `Sings ${name}, ${seconds} s, and goes on.`);

function sendScore() {
  const [file] = score.file.files;
  if (file) score.send(file, file.name, { name: file.name, transpose: Number(controls.transpose.value) });
}

async function record() {
  if (recording) return finishRecording();
  stop(); // the microphone would hear it
  prime.refuse("");
  const starting = new Recording();
  try {
    await starting.start((seconds) => {
      find("recorded").textContent = `${seconds.toFixed(0)} s`;
      if (seconds >= LONGEST_RECORDING) finishRecording();
    });
    recording = starting;
    controls.record.textContent = "Stop recording";
  } catch (error) {
    prime.refuse(`The microphone cannot be used: ${error.message}`);
  }
}

async function finishRecording() {
  const finished = recording;
  if (!finished) return;
  recording = null;
  controls.record.textContent = "Record";
  find("recorded").textContent = "";
  await prime.send(await finished.stop(), "the recording");
}

// Controls

function keep() {
  const unheard = session ? session.received - session.report.played : 0;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(wavFile(minute.heard(unheard), model.sampleRate));
  link.download = `melnet-${new Date().toISOString().slice(0, 19).replaceAll(":", "-")}.wav`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function prepare() {
  const { components, singer, temperature } = controls;
  components.max = model.components;
  components.value = model.components;
  const outputs = [
    [temperature, () => Number(temperature.value).toFixed(2)],
    [components, () => (components.value === components.max ? `all ${components.max}` : `${components.value} of ${components.max}`)],
  ];
  for (const [input, text] of outputs) {
    const output = document.querySelector(`output[for=${input.id}]`);
    const update = () => (output.textContent = text());
    input.addEventListener("input", update);
    update();
  }
  singer.replaceChildren(...model.singers.map((name) => new Option(name)));
  singer.parentElement.hidden = model.singers.length < 2;
  const [least, most] = model.primeSeconds.map((seconds) => seconds.toFixed(1));
  find("prime-help").textContent += ` It takes at least ${least} s of sound, and listens to the last ${most} s.`;
  for (const [id, name, ticks] of [["hz", "--height", spectrogram.ticksHz], ["seconds", "--at", spectrogram.ticksSeconds]]) {
    for (const [text, place] of ticks) {
      const label = document.createElement("span");
      label.textContent = text;
      label.style.setProperty(name, place);
      find(id).append(label);
    }
  }
  document.querySelector(".now").style.setProperty("--at", spectrogram.now);
  controls.play.onclick = () => (session ? stop() : play());
  controls.keep.onclick = keep;
  controls.seed.onchange = controls.singer.onchange = restart;
  controls.another.onclick = () => {
    controls.seed.value = Math.floor(Math.random() * 1e6);
    restart();
  };
  controls.file.onchange = () => controls.file.files.length && prime.send(controls.file.files[0], controls.file.files[0].name);
  controls.record.onclick = record;
  find("score").hidden = !model.takesScore;
  score.file.onchange = controls.transpose.onchange = sendScore;
  controls.sing.onclick = play;
  addEventListener("pagehide", () => stop()); // a browser may keep a page that was left, and its connection
  find("settings").onsubmit = (event) => event.preventDefault();
  setInterval(tell, 250);
  requestAnimationFrame(draw);
  if (window.isSecureContext) {
    controls.play.disabled = false;
    say("Ready: press Play");
  } else {
    controls.record.disabled = true;
    say("");
    complain("problem", "Browsers play this page only over HTTPS, or from the machine's own address: http://localhost");
  }
}

prepare();
