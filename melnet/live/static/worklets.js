// What runs in the audio thread: the player of the voice, and the recorder of the microphone.

const REPORT = 512; // samples between two reports
const RECORDED_BLOCK = 4096;

// Plays chunks one after the other. It begins when enough of them wait, and wants more of them each time it ran dry.
class Player extends AudioWorkletProcessor {
  chunks = [];
  at = 0; // in the first chunk
  waiting = 0; // samples in all chunks
  prebuffer = 0.3 * sampleRate; // samples to wait for before it begins, and before it goes on
  ahead = 2 * sampleRate; // samples that the server should keep waiting here
  running = false;
  ended = false;
  played = 0;
  dry = 0; // times it ran dry
  gap = 0; // samples of the present pause
  longestGap = 0;
  peak = 0;
  unreported = 0;

  constructor() {
    super();
    this.port.onmessage = ({ data }) => {
      if (data === "end") this.ended = true;
      else {
        this.chunks.push(data);
        this.waiting += data.length;
      }
    };
  }

  process(_, [[output]]) {
    if (this.ended) return false;
    this.running ||= this.waiting >= this.prebuffer;
    const count = this.running ? this.take(output) : 0;
    if (this.running && count < output.length) {
      this.running = false;
      this.dry += 1;
      this.prebuffer = Math.min(2 * this.prebuffer, 4 * sampleRate);
      this.ahead = Math.min(1.5 * this.ahead, 8 * sampleRate);
    }
    this.played += count;
    this.waiting -= count;
    if (this.played) this.gap = count < output.length ? this.gap + output.length - count : 0;
    this.longestGap = Math.max(this.longestGap, this.gap);
    this.unreported += output.length;
    if (this.unreported >= REPORT) this.report();
    return true;
  }

  // Fill the output as far as the chunks reach.
  take(output) {
    let filled = 0;
    while (filled < output.length && this.chunks.length) {
      const [chunk] = this.chunks;
      const part = chunk.subarray(this.at, this.at + output.length - filled);
      output.set(part, filled);
      filled += part.length;
      this.at += part.length;
      if (this.at === chunk.length) {
        this.chunks.shift();
        this.at = 0;
      }
    }
    for (const sample of output) this.peak = Math.max(this.peak, Math.abs(sample));
    return filled;
  }

  report() {
    const { played, waiting, ahead, running, dry, longestGap, peak } = this;
    this.port.postMessage({ played, waiting, ahead, running, dry, longestGap, peak });
    this.unreported = this.peak = 0;
  }
}

class Recorder extends AudioWorkletProcessor {
  block = new Float32Array(RECORDED_BLOCK);
  filled = 0;

  process([[input]]) {
    if (!input) return true;
    this.block.set(input, this.filled);
    this.filled += input.length;
    if (this.filled === RECORDED_BLOCK) {
      this.port.postMessage(this.block.slice());
      this.filled = 0;
    }
    return true;
  }
}

registerProcessor("player", Player);
registerProcessor("recorder", Recorder);
